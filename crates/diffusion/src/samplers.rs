//! From noise to latents. Free functions of (denoiser, noise, conditioning, schedule, settings).

use tastemaker_math::ScheduleError;
use tastemaker_math::ddim::{Sampling, plan};
use tastemaker_math::schedule::NoiseSchedule;
use tch::Tensor;

use crate::corruption::timestep_tensor;
use crate::{Conditioning, Denoiser};

/// DDIM sampling.
///
/// `posterior_noise` is asked once per step that adds noise, so never when `sampling.eta` is 0;
/// [`gaussians`](crate::noise::gaussians) is a source of it.
///
/// # Shapes
/// `noise` and what `posterior_noise` gives `[n, c, h, w]` unit gaussian, result latents of the same shape.
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
    mut posterior_noise: impl FnMut() -> Tensor,
) -> Result<Tensor, ScheduleError> {
    let steps = plan(schedule, sampling)?;
    let (n, device) = (noise.size()[0], noise.device());
    Ok(tch::no_grad(|| {
        let mut x = noise.shallow_clone();
        for step in steps {
            let timestep = timestep_tensor(std::iter::repeat_n(step.timestep as i64, n as usize), device);
            let output = denoiser.predict(&x, &timestep, conditioning);
            x = x * step.step.sample + output * step.step.prediction;
            if step.step.noise != 0.0 {
                x += posterior_noise().to_device(device) * step.step.noise;
            }
        }
        x
    }))
}
