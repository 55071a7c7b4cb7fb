//! Errors on held-out pairs at fixed draws: the same question asked again and again, of every method alike.

use tastemaker_diffusion::Denoiser;
use tastemaker_diffusion::corruption::forward;
use tastemaker_diffusion::noise::gaussian;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::TextEncoders;

use crate::batch::{Batch, EncodedPairs, Use, to_host};
use crate::step::{Timesteps, errors};
use crate::text::told_policy;

/// Repetition numbers of probes start here, far from those of training.
const FIRST_DRAW: u64 = 1 << 40;

/// Which pairs a probe asks about.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSet<'a> {
    /// The pair set.
    pub pairs: &'a EncodedPairs,
    /// Indices into it.
    pub indices: &'a [usize],
    /// Timesteps that training visits.
    pub timesteps: Timesteps<'a>,
    /// Seed of the draws.
    pub seed: u64,
    /// Pairs per forward pass.
    pub batch_size: usize,
    /// The text encoders, where they learn.
    pub text: Option<&'a TextEncoders>,
    /// Where the network is.
    pub device: tch::Device,
}

/// Winner and loser error of each pair under forward noise, at draws that depend on the pair alone.
///
/// Timesteps are spread evenly: pair number i of n gets one from the i-th of n equal parts of those that training visits.
pub fn probe(denoiser: &dyn Denoiser, schedule: &NoiseSchedule, set: &ProbeSet<'_>) -> Vec<(f64, f64)> {
    let uses: Vec<Use> =
        set.indices.iter().map(|&index| Use { index, draw: FIRST_DRAW, drop_caption: false }).collect();
    let n = uses.len();
    let timestep = |i: usize, (id, draw): (u64, u64)| {
        let within = Keyed::new(set.seed, Stream::Timestep, id, draw).uniform();
        let share = (i as f64 + within) / n as f64;
        match set.timesteps {
            Timesteps::All => (share * schedule.len() as f64) as usize,
            Timesteps::Among(few) => few[(share * few.len() as f64) as usize],
        }
    };
    let mut result = Vec::with_capacity(n);
    for (chunk_index, chunk) in uses.chunks(set.batch_size).enumerate() {
        let batch = set.pairs.batch(chunk, set.seed, true, set.device);
        let first = chunk_index * set.batch_size;
        let timesteps: Vec<usize> =
            batch.keys.iter().enumerate().map(|(i, &key)| timestep(first + i, key)).collect();
        result.extend(measure(denoiser, schedule, &batch, &timesteps, set));
    }
    result
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
    batch.split(&per_row).into_iter().map(|(winner, loser)| (winner, loser.unwrap_or(f64::NAN))).collect()
}
