//! The loop: which pairs, how many micro-batches, which learning rate, what is told.

use std::time::Instant;

use tastemaker_data::order::pairs_of_step;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{TieRule, implicit_accuracy};
use tastemaker_models::nn::Trainable;
use tastemaker_run::{Event, Plan, Probe, Step, lr_at};
use tch::{Device, Tensor};

use crate::TrainError;
use crate::batch::{EncodedPairs, Use};
use crate::optimizer::{AdamW, AdamWSettings, clip_factor};
use crate::probe::{ProbeSet, probe};
use crate::step::{Engine, PairRecord};

/// What is trained, on what.
pub struct Fit<'a> {
    /// Network, reference, method, draws.
    pub engine: Engine<'a>,
    /// The masters that learn.
    pub trainable: &'a [Trainable],
    /// How many of them, at the end, belong to text encoders and learn at a rate of their own.
    pub n_text: usize,
    /// Encoded pairs.
    pub pairs: &'a EncodedPairs,
    /// Indices of the pairs to train on.
    pub train: &'a [usize],
    /// Indices of the held-out pairs probes ask about; may be empty.
    pub held_out: &'a [usize],
    /// Where the networks are.
    pub device: Device,
}

/// Runs all steps of the plan. `tell` hears of every step and probe, and may end the run by an error.
///
/// A probe is taken before the first step, at every `validation.every` steps, and after the last, if there are held-out
/// pairs. Its reference figures are those of the model as it was before the first step.
///
/// # Errors
/// [`TrainError::NoPairs`]; [`TrainError::NonFinite`], with the weights as the step before left them; and whatever
/// `tell` returns.
pub fn fit(
    fit: &Fit<'_>,
    plan: &Plan,
    mut tell: impl FnMut(&Event) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    if fit.train.is_empty() {
        return Err(TrainError::NoPairs { n_pairs: fit.pairs.pairs.len(), n_held_out: fit.held_out.len() });
    }
    let seed = plan.train.seed;
    let micro = plan.train.train_batch_size as usize;
    let pairs_per_step = micro * plan.train.gradient_accumulation_steps as usize;
    let settings = AdamWSettings {
        adam_beta1: plan.optimizer.adam_beta1,
        adam_beta2: plan.optimizer.adam_beta2,
        adam_weight_decay: plan.optimizer.adam_weight_decay,
        adam_epsilon: plan.optimizer.adam_epsilon,
    };
    let masters: Vec<Tensor> = fit.trainable.iter().map(|t| t.tensor.shallow_clone()).collect();
    let n_unet = masters.len() - fit.n_text;
    let text_rate = plan.text_rate();
    let rates = (0..masters.len()).map(|i| if i < n_unet { 1.0 } else { text_rate }).collect();
    let mut optimizer = AdamW::new(masters, settings).with_rates(rates);
    let schedule = plan.schedule();
    let probing = plan.validation.every > 0 && !fit.held_out.is_empty();
    let mut before = None;

    for step in 0..plan.train.max_train_steps {
        if probing && step % plan.validation.every == 0 {
            tell(&Event::Probe(held_out(fit, plan, step, &mut before)))?;
        }
        let started = Instant::now();
        let uses: Vec<Use> = pairs_of_step(seed, fit.train.len(), pairs_per_step, step)
            .into_iter()
            .map(|used| use_of(fit, plan, fit.train[used.index], used.epoch))
            .collect();
        let with_losers = fit.engine.objective.needs_loser();
        let mut records = Vec::with_capacity(uses.len());
        for chunk in uses.chunks(micro) {
            let batch = fit.pairs.batch(chunk, seed, with_losers, fit.device);
            records.extend(fit.engine.accumulate(&batch, uses.len()));
        }
        let grad_norm = optimizer.gradient_norm();
        if let Some(pairs) = not_finite(&records, grad_norm) {
            optimizer.clear_gradients();
            return Err(TrainError::NonFinite { step, pairs });
        }
        let lr = lr_at(step, &schedule);
        optimizer.step(lr, clip_factor(grad_norm, plan.optimizer.max_grad_norm));
        let pairs_per_second = uses.len() as f64 / started.elapsed().as_secs_f64();
        tell(&Event::Step(summary(step, &records, grad_norm, lr, pairs_per_second)))?;
    }
    if probing {
        tell(&Event::Probe(held_out(fit, plan, plan.train.max_train_steps, &mut before)))?;
    }
    Ok(())
}

fn use_of(fit: &Fit<'_>, plan: &Plan, index: usize, draw: u64) -> Use {
    let id = fit.pairs.pairs[index].id;
    let mut keyed = Keyed::new(plan.train.seed, Stream::CaptionDropout, id, draw);
    Use { index, draw, drop_caption: keyed.chance(plan.data.proportion_empty_prompts) }
}

/// The pairs to blame if the step cannot be taken: those with figures that are not finite, or all if none has.
fn not_finite(records: &[PairRecord], grad_norm: f64) -> Option<Vec<u64>> {
    let pairs: Vec<u64> = records.iter().filter(|r| !r.is_finite()).map(|r| r.id).collect();
    match (pairs.is_empty(), grad_norm.is_finite()) {
        (true, true) => None,
        (true, false) => Some(records.iter().map(|r| r.id).collect()),
        (false, _) => Some(pairs),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    sum / n as f64
}

/// The mean of a figure every record has, or `None`.
fn mean_of(records: &[PairRecord], figure: impl Fn(&PairRecord) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = records.iter().map(figure).collect();
    values.map(|values| mean(values.into_iter()))
}

fn summary(step: u64, records: &[PairRecord], grad_norm: f64, lr: f64, pairs_per_second: f64) -> Step {
    let margin = |r: &PairRecord| {
        let (reference_winner, reference_loser) = r.reference?;
        Some((r.loser_error? - r.winner_error) - (reference_loser - reference_winner))
    };
    Step {
        step,
        loss: mean(records.iter().map(|r| r.outcome.loss)),
        winner_error: mean(records.iter().map(|r| r.winner_error)),
        loser_error: mean_of(records, |r| r.loser_error),
        ref_winner: mean_of(records, |r| Some(r.reference?.0)),
        ref_loser: mean_of(records, |r| Some(r.reference?.1)),
        logit_mean: mean_of(records, |r| r.outcome.logit),
        implicit_accuracy: mean_of(records, |r| Some(implicit_accuracy(r.outcome.logit?, TieRule::Half))),
        margin: mean_of(records, margin),
        grad_norm,
        lr,
        pairs_per_second,
    }
}

/// A probe, compared with the first one of this run.
fn held_out(fit: &Fit<'_>, plan: &Plan, step: u64, before: &mut Option<Vec<(f64, f64)>>) -> Probe {
    let set = ProbeSet {
        pairs: fit.pairs,
        indices: &fit.held_out[..fit.held_out.len().min(plan.validation.n_pairs as usize)],
        timesteps: fit.engine.timesteps,
        seed: plan.train.seed,
        batch_size: plan.train.train_batch_size as usize,
        text: fit.engine.text,
        device: fit.device,
    };
    let now = probe(fit.engine.policy, fit.engine.schedule, &set);
    let first = before.get_or_insert_with(|| now.clone());
    let margins: Vec<f64> =
        now.iter().zip(first.iter()).map(|(now, first)| (now.1 - now.0) - (first.1 - first.0)).collect();
    Probe {
        step,
        n_pairs: now.len() as u64,
        winner_error: mean(now.iter().map(|pair| pair.0)),
        loser_error: Some(mean(now.iter().map(|pair| pair.1))),
        ref_winner: Some(mean(first.iter().map(|pair| pair.0))),
        ref_loser: Some(mean(first.iter().map(|pair| pair.1))),
        implicit_accuracy: Some(mean(margins.iter().map(|&margin| implicit_accuracy(margin, TieRule::Half)))),
        margin: Some(mean(margins.into_iter())),
    }
}
