//! Errors on pairs at fixed draws: the same measurement every time, for every method alike.

use std::collections::{BTreeMap, HashMap};

use tastemaker_diffusion::Denoiser;
use tastemaker_diffusion::corruption::forward;
use tastemaker_diffusion::noise::gaussian;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::level::Level;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_torch::tensors::upload;

use crate::TrainError;
use crate::conditioning::policy_conditioning;
use crate::data::{Batch, FIRST_DRAW, to_host};
use crate::draws::Timesteps;
use crate::step::errors;

/// Winner and loser error of held-out pairs, by identity; the error of a single image twice.
pub type HeldOutErrors = BTreeMap<u64, (f64, f64)>;

/// What is measured of pairs, by identity and repetition.
pub type Measurements = BTreeMap<(u64, u64), Measurement>;

/// How noise levels are spread over the schedule.
#[derive(Debug, Clone, Copy)]
pub enum TimestepSpread<'a> {
    /// Over pairs, each measured once: pair number i of these n gets one from the i-th of n equal parts of those that training
    /// visits.
    OverPairs(&'a [u64]),
    /// Over the draws of each pair: draw number i of so many, counted from [`FIRST_DRAW`], gets one from the i-th part.
    OverDraws(u64),
}

/// Which draws pairs are measured at.
#[derive(Debug, Clone, Copy)]
pub struct DrawSettings<'a> {
    /// How timesteps are spread.
    pub spread: TimestepSpread<'a>,
    /// Timesteps that training visits.
    pub timesteps: Timesteps<'a>,
    /// Seed of the draws.
    pub seed: u64,
    /// The text encoders, where they are trained.
    pub text: Option<&'a TextEncoders>,
}

/// A pair's errors under one draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// What the network was conditioned on.
    pub timestep: f64,
    /// Error on the winner.
    pub winner: f64,
    /// Error on the loser; that of the single image where there is none.
    pub loser: f64,
}

/// Errors of each pair under forward noise, at draws that depend on the pair alone.
///
/// # Errors
/// Those of `batches`.
pub fn measure(
    denoiser: &dyn Denoiser,
    schedule: &NoiseSchedule,
    draws: &DrawSettings<'_>,
    batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>,
) -> Result<Measurements, TrainError> {
    let number: HashMap<u64, usize> = match draws.spread {
        TimestepSpread::OverPairs(ids) => ids.iter().enumerate().map(|(i, id)| (*id, i)).collect(),
        TimestepSpread::OverDraws(_) => HashMap::new(),
    };
    let level = |&(id, draw): &(u64, u64)| {
        let (i, n) = match draws.spread {
            TimestepSpread::OverPairs(ids) => (number.get(&id).copied().unwrap_or_default(), ids.len()),
            TimestepSpread::OverDraws(n) => (draw.saturating_sub(FIRST_DRAW) as usize, n as usize),
        };
        let within = Keyed::new(draws.seed, Stream::Timestep, id, draw).uniform();
        draws.timesteps.quantile(schedule, (i as f64 + within) / n as f64)
    };
    let mut result = BTreeMap::new();
    for batch in batches {
        let batch = batch?;
        let levels: Vec<Level> = batch.keys.iter().map(level).collect();
        let errors = batch_errors(denoiser, schedule, &batch, &levels, draws);
        let measured = levels.iter().map(|level| level.timestep()).zip(errors);
        let measured = measured.map(|(timestep, (winner, loser))| Measurement { timestep, winner, loser });
        result.extend(batch.keys.iter().copied().zip(measured));
    }
    Ok(result)
}

fn batch_errors(
    denoiser: &dyn Denoiser,
    schedule: &NoiseSchedule,
    batch: &Batch,
    levels: &[Level],
    draws: &DrawSettings<'_>,
) -> Vec<(f64, f64)> {
    let keys = batch.pair_keys(draws.seed, Stream::Noise);
    let rows = batch.per_row(levels);
    let per_row = tch::no_grad(|| {
        let noise = upload(&gaussian(&keys, &batch.latents.size()[1..]), batch.latents.device());
        let corrupted = forward(schedule, &batch.latents, &batch.per_row_tensor(&noise), &rows);
        to_host(&errors(denoiser, &corrupted, &policy_conditioning(draws.text, batch)))
    });
    batch.split(&per_row).into_iter().map(|(winner, loser)| (winner, loser.unwrap_or(winner))).collect()
}
