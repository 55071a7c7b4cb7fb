//! Noisy latents and regression targets: by forward noise, or by DDIM inversion.
//!
//! Shapes: n samples, latents `[n, c, h, w]` f32.

use tastemaker_math::ddim::{SamplingStep, inversion_to};
use tastemaker_math::keyed::Keyed;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::Grid;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_torch::tensors::upload;
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
    /// What the network is told of each sample's level, `[n]` f32.
    pub timestep: Tensor,
}

/// Numbers of each sample on a device, `K` tensors `[n]` f32, brought there in one transfer. Not all timesteps are whole.
fn per_sample<const K: usize>(numbers: impl Iterator<Item = [f64; K]>, device: Device) -> [Tensor; K] {
    let numbers: Vec<f32> = numbers.flatten().map(|number| number as f32).collect();
    let there = upload(&Tensor::from_slice(&numbers).reshape([-1, K as i64]), device);
    std::array::from_fn(|k| there.select(1, k as i64))
}

/// Factors ready to multiply latents: `[n, 1, 1, 1]`.
fn factors<const K: usize>(numbers: [Tensor; K]) -> [Tensor; K] {
    numbers.map(|numbers| numbers.reshape([-1, 1, 1, 1]))
}

/// `x = a z + b e` at each sample's level, and the target that goes with it.
pub fn forward(schedule: &NoiseSchedule, clean: &Tensor, noise: &Tensor, levels: &[Level]) -> Corrupted {
    let numbers = levels.iter().map(|level| {
        let (mixture, target) = (level.mixture(), level.target(schedule.prediction()));
        [level.timestep(), mixture.clean, mixture.noise, target.clean, target.noise]
    });
    let [timestep, mixture @ ..] = per_sample(numbers, clean.device());
    let [clean_in_mixture, noise_in_mixture, clean_in_target, noise_in_target] = factors(mixture);
    Corrupted {
        noisy: clean_in_mixture * clean + noise_in_mixture * noise,
        target: clean_in_target * clean + noise_in_target * noise,
        timestep,
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
            let index = upload(&Tensor::from_slice(&index), device);
            let part = x.index_select(0, &index);
            let numbers = steps
                .iter()
                .map(|SamplingStep { timestep, step }| [*timestep, step.sample, step.prediction, step.noise]);
            let [timestep, coefficients @ ..] = per_sample(numbers, device);
            let [of_sample, of_prediction, of_noise] = factors(coefficients);
            let output = denoiser.predict(&part, &timestep, &conditioning.select(&index));
            let mut moved = of_sample * &part + of_prediction * output;
            if eta > 0.0 {
                let drawing =
                    generators.iter_mut().enumerate().filter(|(i, _)| active.contains(i)).map(|(_, g)| g);
                moved += of_noise * upload(&next_gaussian(drawing, &clean.size()[1..]), device);
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
    let numbers = levels.iter().map(|level| {
        let implied = level.implied_target(schedule.prediction());
        [level.timestep(), implied.noisy, implied.clean]
    });
    let [timestep, implied @ ..] = per_sample(numbers, clean.device());
    let [of_noisy, of_clean] = factors(implied);
    let target = of_noisy * &noisy + of_clean * clean;
    Corrupted { noisy, target, timestep }
}
