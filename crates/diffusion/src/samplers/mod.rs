//! From noise to latents, and back. Free functions of (denoiser, latents, conditioning, plan or settings).

mod inversion;

pub use inversion::invert;

use tastemaker_math::ScheduleError;
use tastemaker_math::ddim::Sampling;
use tastemaker_math::samplers::{Plan, Sampler};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_torch::tensors::upload;
use tch::{Device, Kind, Tensor};

use crate::{Conditioning, Denoiser};

/// The latents a plan starts from: noise, or a clean latent mixed with it where there is one.
///
/// # Shapes
/// `noise` and `image` `[n, c, h, w]`, noise unit gaussian.
pub fn start(plan: &Plan, noise: &Tensor, image: Option<&Tensor>) -> Tensor {
    match image {
        Some(image) => image * plan.mixture.clean + noise * plan.mixture.noise,
        None if plan.initial == 1.0 => noise.shallow_clone(),
        None => noise * plan.initial,
    }
}

/// Follows a plan from `x`, which [`start`] made.
///
/// `fresh_noise` is asked once per step that adds noise; [`gaussians`](crate::noise::gaussians) is a source of it.
///
/// # Shapes
/// `x` and what `fresh_noise` gives `[n, c, h, w]`, result latents of the same shape.
pub fn sample(
    denoiser: &dyn Denoiser,
    x: &Tensor,
    conditioning: &Conditioning,
    plan: &Plan,
    mut fresh_noise: impl FnMut() -> Tensor,
) -> Tensor {
    let (n, device) = (x.size()[0], x.device());
    tch::no_grad(|| {
        let mut x = x.shallow_clone();
        let mut before: [Option<Tensor>; 2] = [None, None];
        for entry in &plan.steps {
            let output = denoiser.predict(&x, &clock(n, entry.timestep, device), conditioning);
            let estimate =
                entry.estimate.map(|estimate| &x * estimate.sample + &output * estimate.prediction);
            x = x * entry.step.sample + output * entry.step.prediction;
            for (before, weight) in before.iter().zip(entry.previous) {
                if let Some(before) = before.as_ref().filter(|_| weight != 0.0) {
                    x += before * weight;
                }
            }
            if entry.step.noise != 0.0 {
                x += upload(&fresh_noise(), device) * entry.step.noise;
            }
            before.rotate_right(1);
            before[0] = estimate;
        }
        x
    })
}

/// DDIM sampling: [`sample`] along its plan.
///
/// # Shapes
/// `noise` and what `posterior_noise` gives `[n, c, h, w]` unit gaussian, result latents of the same shape.
///
/// # Errors
/// Those of [`Sampler::plan`]: a step count the schedule cannot serve.
///
/// Source: arXiv 2010.02502, eq. 12; `DDIMScheduler` of diffusers.
pub fn ddim(
    denoiser: &dyn Denoiser,
    noise: &Tensor,
    conditioning: &Conditioning,
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    posterior_noise: impl FnMut() -> Tensor,
) -> Result<Tensor, ScheduleError> {
    let plan = Sampler::Ddim.plan(schedule, sampling, 0)?;
    Ok(sample(denoiser, &start(&plan, noise, None), conditioning, &plan, posterior_noise))
}

/// One timestep for all samples: `[n]` f32, for a timestep may lie between two whole ones.
fn clock(n: i64, timestep: f64, device: Device) -> Tensor {
    Tensor::full([n], timestep, (Kind::Float, device))
}
