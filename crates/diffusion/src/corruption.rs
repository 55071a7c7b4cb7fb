//! Noisy latents and regression targets: by forward noise, or by DDIM inversion.
//!
//! Shapes: n samples, latents `[n, c, h, w]` f32.

use tastemaker_math::ddim::{SamplingStep, inversion_to};
use tastemaker_math::keyed::Keyed;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::Grid;
use tastemaker_math::schedule::NoiseSchedule;
use tch::{Device, Tensor};

use crate::noise::{NoiseKey, next_gaussian};
use crate::{Conditioning, Denoiser};

/// What the network is given and what it is asked for.
#[derive(Debug)]
pub struct Corrupted {
    /// Noisy latents.
    pub noisy: Tensor,
    /// Regression targets of the schedule's prediction type.
    pub target: Tensor,
}

/// One factor per sample, ready to multiply latents: `[n, 1, 1, 1]` f32.
pub fn per_sample(factors: impl Iterator<Item = f64>, device: Device) -> Tensor {
    let factors: Vec<f32> = factors.map(|factor| factor as f32).collect();
    Tensor::from_slice(&factors).to_device(device).reshape([-1, 1, 1, 1])
}

/// Timesteps as the network takes them: `[n]` f32, for not all are whole.
pub fn timestep_tensor(timesteps: impl Iterator<Item = f64>, device: Device) -> Tensor {
    Tensor::from_slice(&timesteps.map(|timestep| timestep as f32).collect::<Vec<_>>()).to_device(device)
}

/// `x = a z + b e` at each sample's level, and the target that goes with it.
pub fn forward(schedule: &NoiseSchedule, clean: &Tensor, noise: &Tensor, levels: &[Level]) -> Corrupted {
    let mix = |coefficients: &dyn Fn(Level) -> (f64, f64)| {
        let a = per_sample(levels.iter().map(|&level| coefficients(level).0), clean.device());
        let b = per_sample(levels.iter().map(|&level| coefficients(level).1), clean.device());
        a * clean + b * noise
    };
    Corrupted {
        noisy: mix(&|level| {
            let mixture = level.mixture();
            (mixture.clean, mixture.noise)
        }),
        target: mix(&|level| {
            let target = level.target(schedule.prediction());
            (target.clean, target.noise)
        }),
    }
}

/// How an inversion is carried out; the fields of `Corruption::DdimInversion`.
#[derive(Debug, Clone, Copy)]
pub struct Inversion {
    /// Network calls for a whole trajectory.
    pub n_steps: usize,
    /// Fraction of posterior noise added after every step.
    pub eta: f64,
    /// Which levels are visited.
    pub grid: Grid,
}

/// The noisy latent at each sample's level by inversion of `clean`, without gradient, and the target of the noise it implies.
///
/// Samples may have any mix of levels: those with fewer steps stop earlier. `keys` names each sample's posterior
/// noise.
///
/// Source: DDIM-InPO; see `tastemaker_math::ddim::inversion_to`.
pub fn invert(
    schedule: &NoiseSchedule,
    denoiser: &dyn Denoiser,
    clean: &Tensor,
    conditioning: &Conditioning,
    levels: &[Level],
    keys: &[NoiseKey],
    settings: &Inversion,
) -> Corrupted {
    let device = clean.device();
    let Inversion { n_steps, eta, grid } = *settings;
    let plans: Vec<Vec<SamplingStep>> =
        levels.iter().map(|&level| inversion_to(schedule, grid, level, n_steps, eta)).collect();
    let mut generators: Vec<Keyed> = keys.iter().map(NoiseKey::generator).collect();
    let n_rounds = plans.iter().map(Vec::len).max().unwrap_or(0);

    let noisy = tch::no_grad(|| {
        let mut x = clean.copy();
        for round in 0..n_rounds {
            let active: Vec<usize> = (0..plans.len()).filter(|&i| round < plans[i].len()).collect();
            let steps: Vec<SamplingStep> = active.iter().map(|&i| plans[i][round]).collect();
            let index: Vec<i64> = active.iter().map(|&i| i as i64).collect();
            let index = Tensor::from_slice(&index).to_device(device);
            let timestep = timestep_tensor(steps.iter().map(|one| one.timestep), device);
            let part = x.index_select(0, &index);
            let output = denoiser.predict(&part, &timestep, &conditioning.select(&index));
            let mut moved = per_sample(steps.iter().map(|one| one.step.sample), device) * &part
                + per_sample(steps.iter().map(|one| one.step.prediction), device) * output;
            if eta > 0.0 {
                let drawing =
                    generators.iter_mut().enumerate().filter(|(i, _)| active.contains(i)).map(|(_, g)| g);
                let gaussian = next_gaussian(drawing, &clean.size()[1..]).to_device(device);
                moved += per_sample(steps.iter().map(|one| one.step.noise), device) * gaussian;
            }
            x = x.index_copy(0, &index, &moved);
        }
        x
    });

    with_implied_target(schedule, noisy, clean, levels)
}

/// Inverted latents, and the target of the noise they imply.
pub fn with_implied_target(
    schedule: &NoiseSchedule,
    noisy: Tensor,
    clean: &Tensor,
    levels: &[Level],
) -> Corrupted {
    let device = clean.device();
    let implied = |level: &Level| level.implied_target(schedule.prediction());
    let target = per_sample(levels.iter().map(|level| implied(level).noisy), device) * &noisy
        + per_sample(levels.iter().map(|level| implied(level).clean), device) * clean;
    Corrupted { noisy, target }
}
