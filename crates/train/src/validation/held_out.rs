//! Errors on pairs at fixed draws: the same question asked again and again, of every method alike.

use std::collections::{BTreeMap, HashMap};

use tastemaker_diffusion::Denoiser;
use tastemaker_diffusion::corruption::forward;
use tastemaker_diffusion::noise::gaussian;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::TextEncoders;

use crate::TrainError;
use crate::conditioning::told_policy;
use crate::data::FIRST_DRAW;
use crate::data::{Batch, to_host};
use crate::step::{Timesteps, errors};

/// How the timesteps of a probe are spread.
#[derive(Debug, Clone, Copy)]
pub enum Spread<'a> {
    /// Over pairs, each looked at once: pair number i of these n gets one from the i-th of n equal parts of those that training
    /// visits.
    OverPairs(&'a [u64]),
    /// Over the looks at each pair: look number i of so many, counted from [`FIRST_DRAW`], gets one from the i-th part.
    OverDraws(u64),
}

/// What a probe asks.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSet<'a> {
    /// How timesteps are spread.
    pub spread: Spread<'a>,
    /// Timesteps that training visits.
    pub timesteps: Timesteps<'a>,
    /// Seed of the draws.
    pub seed: u64,
    /// The text encoders, where they learn.
    pub text: Option<&'a TextEncoders>,
}

/// What was found about a pair under one draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// The timestep.
    pub timestep: usize,
    /// Error on the winner.
    pub winner: f64,
    /// Error on the loser; that of the single image where there is none.
    pub loser: f64,
}

/// Winner and loser error of each pair under forward noise, by identity, at draws that depend on the pair alone; the error of a
/// single image twice.
///
/// # Errors
/// Those of `batches`.
pub fn probe(
    denoiser: &dyn Denoiser,
    schedule: &NoiseSchedule,
    set: &ProbeSet<'_>,
    batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>,
) -> Result<BTreeMap<u64, (f64, f64)>, TrainError> {
    let found = looks(denoiser, schedule, set, batches)?;
    Ok(found.into_iter().map(|((id, _), look)| (id, (look.winner, look.loser))).collect())
}

/// What is found about each pair, by its identity and repetition.
///
/// # Errors
/// Those of `batches`.
pub fn looks(
    denoiser: &dyn Denoiser,
    schedule: &NoiseSchedule,
    set: &ProbeSet<'_>,
    batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>,
) -> Result<BTreeMap<(u64, u64), Look>, TrainError> {
    let number: HashMap<u64, usize> = match set.spread {
        Spread::OverPairs(ids) => ids.iter().enumerate().map(|(i, id)| (*id, i)).collect(),
        Spread::OverDraws(_) => HashMap::new(),
    };
    let timestep = |&(id, draw): &(u64, u64)| {
        let (i, n) = match set.spread {
            Spread::OverPairs(ids) => (number.get(&id).copied().unwrap_or_default(), ids.len()),
            Spread::OverDraws(n) => (draw.saturating_sub(FIRST_DRAW) as usize, n as usize),
        };
        let within = Keyed::new(set.seed, Stream::Timestep, id, draw).uniform();
        let share = (i as f64 + within) / n as f64;
        match set.timesteps {
            Timesteps::All => (share * schedule.len() as f64) as usize,
            Timesteps::Among(few) => few[(share * few.len() as f64) as usize],
        }
    };
    let mut result = BTreeMap::new();
    for batch in batches {
        let batch = batch?;
        let timesteps: Vec<usize> = batch.keys.iter().map(timestep).collect();
        let errors = measure(denoiser, schedule, &batch, &timesteps, set);
        let found = timesteps.iter().zip(errors);
        let found = found.map(|(&timestep, (winner, loser))| Look { timestep, winner, loser });
        result.extend(batch.keys.iter().copied().zip(found));
    }
    Ok(result)
}

fn measure(
    denoiser: &dyn Denoiser,
    schedule: &NoiseSchedule,
    batch: &Batch,
    timesteps: &[usize],
    set: &ProbeSet<'_>,
) -> Vec<(f64, f64)> {
    let keys = batch.pair_keys(set.seed, Stream::Noise);
    let rows = batch.per_row(timesteps);
    let per_row = tch::no_grad(|| {
        let noise = gaussian(&keys, &batch.latents.size()[1..]).to_device(batch.latents.device());
        let corrupted = forward(schedule, &batch.latents, &batch.per_row_tensor(&noise), &rows);
        to_host(&errors(denoiser, &corrupted, &rows, &told_policy(set.text, batch)))
    });
    batch.split(&per_row).into_iter().map(|(winner, loser)| (winner, loser.unwrap_or(winner))).collect()
}
