//! From noise to latents. Free functions of (denoiser, noise, conditioning, schedule, settings).

use tastemaker_math::ScheduleError;
use tastemaker_math::ddim::{Sampling, plan};
use tastemaker_math::schedule::NoiseSchedule;
use tch::Tensor;

use crate::corruption::timestep_tensor;
use crate::noise::next_gaussian;
use crate::noise::NoiseKey;
use crate::{Conditioning, Denoiser};

/// DDIM sampling.
///
/// `keys` names each sample's posterior noise; it is used when `sampling.eta` is above 0.
///
/// # Shapes
/// `noise` `[n, c, h, w]` unit gaussian, result latents of the same shape.
///
/// # Errors
/// Those of [`plan`]: a step count the schedule cannot serve.
///
/// Source: arXiv 2010.02502, eq. 12; `DDIMScheduler` of diffusers.
pub fn ddim(
    denoiser: &dyn Denoiser,
    noise: &Tensor,
    conditioning: &Conditioning,
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    keys: &[NoiseKey],
) -> Result<Tensor, ScheduleError> {
    let steps = plan(schedule, sampling)?;
    let (n, device) = (noise.size()[0], noise.device());
    let mut generators: Vec<_> = keys.iter().map(NoiseKey::generator).collect();
    Ok(tch::no_grad(|| {
        let mut x = noise.shallow_clone();
        for step in steps {
            let timestep = timestep_tensor(std::iter::repeat_n(step.timestep as i64, n as usize), device);
            let output = denoiser.predict(&x, &timestep, conditioning);
            x = x * step.step.sample + output * step.step.prediction;
            if step.step.noise != 0.0 {
                x += next_gaussian(generators.iter_mut(), &noise.size()[1..]).to_device(device) * step.step.noise;
            }
        }
        x
    }))
}
