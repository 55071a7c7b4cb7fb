//! One optimization step: the engine differentiates the network, the objective differentiates itself.
//!
//! The seven steps are those of `docs/architecture.md` section 2. Shapes: n pairs, r rows (2n, or n without losers),
//! latents `[r, c, h, w]`.

use std::collections::HashMap;

use tastemaker_diffusion::corruption::{Corrupted, forward, invert, with_implied_target};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::intervals::mean;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{
    Corruption, ImageInputs, InversionModel, Label, MeanGain, NoiseLevel, Objective, Outcome, PairInputs,
};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_torch::tensors::upload;
use tch::{Kind, Tensor};

use crate::conditioning::policy_conditioning;
use crate::data::{Batch, to_host};
use crate::draws::{Disturbance, Drawing, Draws, Noise, Timesteps};
use crate::reference::Reference;

/// Everything a step reads and does not change.
pub struct Engine<'a> {
    /// The network being trained.
    pub policy: &'a dyn Denoiser,
    /// The frozen reference.
    pub reference: &'a Reference<'a>,
    /// The text encoders, where they are trained.
    pub text: Option<&'a TextEncoders>,
    /// The method.
    pub objective: &'a Objective,
    /// Probabilities that winners are really the better ones, by identity of pairs, where the method needs them.
    pub soft_labels: Option<&'a HashMap<u64, f64>>,
    /// Label of each image by its identity, where these are single images: then batches hold no losers.
    pub labels: Option<&'a HashMap<u64, Label>>,
    /// Noise levels.
    pub schedule: &'a NoiseSchedule,
    /// Where levels are drawn from.
    pub timesteps: Timesteps<'a>,
    /// Seed of every draw.
    pub seed: u64,
    /// What is done to draws on purpose.
    pub disturbance: Disturbance,
}

/// What one pair did in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairRecord {
    /// The pair's identity.
    pub id: u64,
    /// What the network was conditioned on.
    pub timestep: f64,
    /// Its label, if it is a single image.
    pub label: Option<Label>,
    /// Policy error on the winner, or the single image.
    pub winner_error: f64,
    /// Policy error on the loser.
    pub loser_error: Option<f64>,
    /// Reference errors on (winner, loser); that of the winner twice where there is no loser.
    pub reference: Option<(f64, f64)>,
    /// Mean square of the policy's outputs over the images of the pair.
    pub square: f64,
    /// That of the reference's, where it answered in this step.
    pub ref_square: Option<f64>,
    /// Loss, derivatives and logit.
    pub outcome: Outcome,
}

impl PairRecord {
    /// Whether every number of this record is finite.
    ///
    /// An infinite error of a loser can hide behind a loss of 0, so the errors are checked, too.
    pub fn is_finite(&self) -> bool {
        let (reference_winner, reference_loser) = self.reference.unwrap_or_default();
        let Outcome { loss, d_winner, d_loser, .. } = self.outcome;
        let loser_error = self.loser_error.unwrap_or_default();
        [self.winner_error, loser_error, reference_winner, reference_loser, loss, d_winner, d_loser]
            .iter()
            .all(|number| number.is_finite())
    }
}

/// What was computed of a micro-batch before the run.
#[derive(Debug)]
pub struct Precomputed {
    /// The reference's errors on each (winner, loser); of single images twice.
    pub errors: Vec<(f64, f64)>,
    /// Noisy latents of each row, `[r, c, h, w]` f32, where the reference inverts.
    pub noisy: Option<Tensor>,
}

/// What a micro-batch needs to know of its step.
#[derive(Debug)]
pub struct StepContext {
    /// Pairs of the whole step, on all ranks.
    pub n_total: usize,
    /// Factor on the loss, divided out again by the optimizer.
    pub loss_scale: f64,
    /// Mean over images of reference minus policy error in the step before.
    pub mean_gain: f64,
    /// What needs the reference, where it was precomputed.
    pub precomputed: Option<Precomputed>,
}

impl StepContext {
    /// Of a step of this many pairs and nothing else known.
    pub fn of(n_total: usize) -> Self {
        Self { n_total, loss_scale: 1.0, mean_gain: 0.0, precomputed: None }
    }
}

impl Engine<'_> {
    /// What its draws depend on.
    pub fn drawing(&self) -> Drawing<'_> {
        Drawing {
            corruption: self.objective.corruption(),
            schedule: self.schedule,
            timesteps: self.timesteps,
            seed: self.seed,
            disturbance: self.disturbance,
        }
    }

    /// Draws for each pair of a micro-batch.
    pub fn draw(&self, batch: &Batch) -> Draws {
        self.drawing().draw(batch)
    }

    /// Adds this micro-batch's part of the gradient of the mean loss over `n_total` pairs.
    ///
    /// Returns the records of its pairs. If one of them is not finite, the micro-batch contributes no gradient.
    pub fn accumulate(&self, batch: &Batch, n_total: usize) -> Vec<PairRecord> {
        self.accumulate_with(batch, &self.draw(batch), &StepContext::of(n_total))
    }

    /// [`Engine::accumulate`] with draws made elsewhere and as part of a step.
    pub fn accumulate_with(&self, batch: &Batch, draws: &Draws, step: &StepContext) -> Vec<PairRecord> {
        let rows = batch.per_row(&draws.levels);
        let known = step.precomputed.as_ref();
        let corrupted = match known.and_then(|known| known.noisy.as_ref()) {
            Some(noisy) => with_implied_target(self.schedule, noisy.shallow_clone(), &batch.latents, &rows),
            None => self.corrupt(batch, &draws.noise, &rows),
        };
        let output_squares = |residuals: &Tensor| mean_squares(&(residuals.detach() + &corrupted.target));
        let needs = self.objective.needs();
        let live = (needs.reference && (known.is_none() || needs.distance))
            .then(|| self.reference_residuals(batch, &corrupted));

        // After the reference, which may have had other weights in the place of the policy's.
        let conditioning = policy_conditioning(self.text, batch);
        let residuals = residuals(self.policy, &corrupted, &conditioning);
        let policy = mean_squares(&residuals);
        // Targets are the same, so residuals are as far apart as outputs.
        let distance =
            live.as_ref().filter(|_| needs.distance).map(|live| mean_squares(&(&residuals - live)));
        let [errors, reference, squares, ref_squares, products, distances] = fetch([
            Some(&policy),
            live.as_ref().filter(|_| known.is_none()).map(mean_squares).as_ref(),
            Some(&output_squares(&residuals)),
            live.as_ref().map(output_squares).as_ref(),
            needs.residual_product.then(|| products(&residuals.detach())).as_ref(),
            distance.as_ref(),
        ]);
        let reference = reference.map(|per_row| of_pairs(batch, &per_row));
        let known = known.filter(|_| needs.reference).map(|known| known.errors.as_slice());
        let distances = distances.map(|per_row| of_pairs(batch, &per_row));
        let of_images = |per_row: Vec<f64>| mean_of_sides(&of_pairs(batch, &per_row));
        let ref_squares = ref_squares.map(of_images);
        let measured = Measured {
            levels: &draws.levels,
            policy: batch.split(&errors.unwrap_or_default()),
            reference: reference.as_deref().or(known),
            products: products.as_deref(),
            distances: distances.as_deref(),
            squares: &of_images(squares.unwrap_or_default()),
            ref_squares: ref_squares.as_deref(),
        };
        let records = self.evaluate(batch, &measured, step);
        if records.iter().all(PairRecord::is_finite) {
            let weight = step.loss_scale / step.n_total as f64;
            let coefficient = |(record, &(id, draw)): (&PairRecord, &(u64, u64))| {
                let of_sides = (record.outcome.d_winner * weight, record.outcome.d_loser * weight);
                if self.is_exchanged(id, draw) { (of_sides.1, of_sides.0) } else { of_sides }
            };
            let coefficients: Vec<(f64, f64)> = records.iter().zip(&batch.keys).map(coefficient).collect();
            let coefficients: Vec<f32> = batch.join(&coefficients).into_iter().map(|c| c as f32).collect();
            let coefficients = upload(&Tensor::from_slice(&coefficients), policy.device());
            let mut loss = (policy * coefficients).sum(Kind::Float);
            if let (Some(distance), Some(record)) = (distance, records.first()) {
                // Every image weighs the same.
                loss += distance.sum(Kind::Float) * (record.outcome.d_distance * weight);
            }
            loss.backward();
        }
        records
    }

    /// Whether the policy's errors on a micro-batch are numbers, under forward noise.
    pub fn predicts_numbers(&self, batch: &Batch) -> bool {
        let drawing = Drawing { corruption: Corruption::Forward, ..self.drawing() };
        let Draws { levels, noise } = drawing.draw(batch);
        let rows = batch.per_row(&levels);
        let errors = tch::no_grad(|| {
            let corrupted = self.corrupt(batch, &noise, &rows);
            to_host(&errors(self.policy, &corrupted, &policy_conditioning(self.text, batch)))
        });
        errors.iter().all(|error| error.is_finite())
    }

    /// What needs the reference of a micro-batch, under the draws of this run.
    pub fn precompute(&self, batch: &Batch) -> Precomputed {
        let draws = self.draw(batch);
        let rows = batch.per_row(&draws.levels);
        let corrupted = self.corrupt(batch, &draws.noise, &rows);
        let errors = of_pairs(batch, &to_host(&mean_squares(&self.reference_residuals(batch, &corrupted))));
        let noisy = matches!(draws.noise, Noise::Inversion { .. }).then_some(corrupted.noisy);
        Precomputed { errors, noisy }
    }

    fn reference_residuals(&self, batch: &Batch, corrupted: &Corrupted) -> Tensor {
        let conditioning = self.reference.conditioning(self.text, batch);
        self.reference.with(|denoiser| tch::no_grad(|| residuals(denoiser, corrupted, &conditioning)))
    }

    /// Noisy latents and targets. Winner and loser share timestep and noise; policy and reference share the result.
    fn corrupt(&self, batch: &Batch, noise: &Noise, rows: &[Level]) -> Corrupted {
        match noise {
            Noise::Forward(noise) => {
                forward(self.schedule, &batch.latents, &batch.per_row_tensor(noise), rows)
            }
            Noise::Inversion { model, settings, keys } => {
                let run = |denoiser: &dyn Denoiser, conditioning: &Conditioning| {
                    invert(self.schedule, denoiser, &batch.latents, conditioning, rows, keys, settings)
                };
                match model {
                    InversionModel::Policy => {
                        let conditioning = tch::no_grad(|| policy_conditioning(self.text, batch));
                        run(self.policy, &conditioning)
                    }
                    InversionModel::Reference => {
                        let conditioning = self.reference.conditioning(self.text, batch);
                        self.reference.with(|denoiser| run(denoiser, &conditioning))
                    }
                }
            }
        }
    }

    fn evaluate(&self, batch: &Batch, measured: &Measured<'_>, step: &StepContext) -> Vec<PairRecord> {
        let mean_gain = match self.objective.needs().mean_gain {
            MeanGain::Zero => 0.0,
            MeanGain::PreviousStep => step.mean_gain,
            MeanGain::Batch => mean_gain(measured.reference.into_iter().flatten().zip(&measured.policy)),
        };
        let pairs = batch.keys.iter().zip(measured.levels).enumerate();
        let record = |(i, (&(id, draw), &level)): (usize, (&(u64, u64), &Level))| {
            let is_exchanged = self.is_exchanged(id, draw);
            let (winner_error, loser_error) = match measured.policy[i] {
                (winner, Some(loser)) if is_exchanged => (loser, Some(winner)),
                as_labeled => as_labeled,
            };
            let reference = measured.reference.map(|pairs| pairs[i]);
            let reference =
                reference.map(|(winner, loser)| if is_exchanged { (loser, winner) } else { (winner, loser) });
            let label = self.labels.and_then(|known| known.get(&id)).copied();
            let outcome = match label {
                Some(label) => {
                    let reference = reference.map(|(of_image, _)| of_image);
                    let distance = measured.distances.map(|pairs| pairs[i].0);
                    let error = winner_error;
                    self.objective.of_image(&ImageInputs { label, error, reference, distance, mean_gain })
                }
                None => self.objective.of_pair(&PairInputs {
                    winner: winner_error,
                    loser: loser_error,
                    reference,
                    residual_product: measured.products.map(|products| products[i]),
                    soft_label: self
                        .soft_labels
                        .and_then(|known| known.get(&id))
                        .map(|&label| if is_exchanged { 1.0 - label } else { label }),
                    distances: measured.distances.map(|pairs| pairs[i]),
                    mean_gain,
                    level: NoiseLevel::of(self.schedule, level),
                }),
            };
            let timestep = level.timestep();
            let (square, ref_square) = (measured.squares[i], measured.ref_squares.map(|squares| squares[i]));
            PairRecord {
                id,
                timestep,
                label,
                winner_error,
                loser_error,
                reference,
                square,
                ref_square,
                outcome,
            }
        };
        pairs.map(record).collect()
    }

    /// Whether the label of a pair is noise in this repetition.
    fn is_exchanged(&self, id: u64, draw: u64) -> bool {
        let label_noise = self.disturbance.label_noise;
        label_noise > 0.0 && Keyed::new(self.seed, Stream::LabelNoise, id, draw).bernoulli(label_noise)
    }
}

/// What was measured about the pairs of a micro-batch.
struct Measured<'a> {
    levels: &'a [Level],
    policy: Vec<(f64, Option<f64>)>,
    reference: Option<&'a [(f64, f64)]>,
    products: Option<&'a [f64]>,
    /// Mean squared distances of the policy's outputs from the reference's.
    distances: Option<&'a [(f64, f64)]>,
    /// Mean squares of the policy's outputs, and of the reference's.
    squares: &'a [f64],
    ref_squares: Option<&'a [f64]>,
}

fn mean_of_sides(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(winner, loser)| 0.5 * (winner + loser)).collect()
}

/// What was measured of each row by pairs; that of a single image twice.
fn of_pairs(batch: &Batch, per_row: &[f64]) -> Vec<(f64, f64)> {
    batch.split(per_row).into_iter().map(|(winner, loser)| (winner, loser.unwrap_or(winner))).collect()
}

/// Brings vectors, f32, to the host in one transfer, for which everything that is computed of them has to be done.
fn fetch<const N: usize>(vectors: [Option<&Tensor>; N]) -> [Option<Vec<f64>>; N] {
    let there: Vec<Tensor> = vectors.iter().flatten().map(|vector| vector.detach()).collect();
    let mut all = to_host(&Tensor::cat(&there, 0)).into_iter();
    vectors.map(|vector| vector.map(|vector| all.by_ref().take(vector.numel()).collect()))
}

/// Mean squared error of each row, `[r]` f32, the graph kept where gradients are on.
pub(crate) fn errors(denoiser: &dyn Denoiser, corrupted: &Corrupted, conditioning: &Conditioning) -> Tensor {
    mean_squares(&residuals(denoiser, corrupted, conditioning))
}

/// Output minus target, `[r, c, h, w]`.
fn residuals(denoiser: &dyn Denoiser, corrupted: &Corrupted, conditioning: &Conditioning) -> Tensor {
    denoiser.predict(&corrupted.noisy, &corrupted.timestep, conditioning) - &corrupted.target
}

fn mean_squares(residuals: &Tensor) -> Tensor {
    residuals.square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

/// Mean over elements of winner's times loser's residual, of each pair, `[n]` f32. Rows are winners, then losers.
fn products(residuals: &Tensor) -> Tensor {
    let sides = residuals.chunk(2, 0);
    (&sides[0] * &sides[1]).mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

/// Mean over images of reference minus policy error, at least 0; pairs are those of the reference and of the policy.
fn mean_gain<'a>(pairs: impl Iterator<Item = (&'a (f64, f64), &'a (f64, Option<f64>))>) -> f64 {
    let gains: Vec<f64> = pairs
        .flat_map(|(reference, policy)| {
            [Some(reference.0 - policy.0), policy.1.map(|loser| reference.1 - loser)].into_iter().flatten()
        })
        .collect();
    mean(&gains).unwrap_or(f64::NAN).max(0.0)
}
