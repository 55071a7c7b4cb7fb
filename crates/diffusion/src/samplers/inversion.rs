//! From latents of real images to the noise that DDIM makes them of.

use tastemaker_math::ScheduleError;
use tastemaker_math::ddim::{Sampling, inverse_plan};
use tastemaker_math::schedule::NoiseSchedule;
use tch::Tensor;

use super::clock;
use crate::{Conditioning, Denoiser};

/// The noise that [`ddim`](super::ddim) with the same denoiser, conditioning and `sampling` makes `clean` of.
///
/// With no `refinements` it is diffusers' inversion: the network's answer at the latent a step goes to is taken to be its answer at
/// the latent the step comes from. Every refinement asks again at the latent found so far, and DDIM's way back comes closer to
/// `clean`; the price is one more call for each step.
///
/// Invert without guidance, or with that of the sampling to come. `sampling.eta` does not count.
///
/// # Shapes
/// `clean` and result `[n, c, h, w]`.
///
/// # Errors
/// Those of [`inverse_plan`].
///
/// Source: `DDIMInverseScheduler` of diffusers; refinements: arXiv 2312.12540.
pub fn invert(
    denoiser: &dyn Denoiser,
    clean: &Tensor,
    conditioning: &Conditioning,
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    refinements: usize,
) -> Result<Tensor, ScheduleError> {
    let steps = inverse_plan(schedule, sampling)?;
    Ok(tch::no_grad(|| {
        steps.iter().fold(clean.shallow_clone(), |x, entry| {
            let timestep = clock(x.size()[0], entry.timestep, x.device());
            let answer = |x: &Tensor| denoiser.predict(x, &timestep, conditioning);
            let guess = &x * entry.guess.sample + answer(&x) * entry.guess.prediction;
            (0..refinements)
                .fold(guess, |found, _| &x * entry.undo.sample + answer(&found) * entry.undo.prediction)
        })
    }))
}
