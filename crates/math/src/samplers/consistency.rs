//! Consistency models: every step estimates the clean latent, and goes back to a level with fresh noise.

use super::grids::power;
use super::{Plan, PlanStep, Sampler};
use crate::ddim::{Sampling, Step, step};
use crate::schedule::{Forward, NoiseSchedule, ScheduleError};

/// The steps that such models are distilled on; sampling takes some of them.
const DISTILLED: usize = 50;

/// Where the boundary condition lets the noisy latent through: next to nowhere but at the cleanest timesteps.
const SIGMA_DATA: f64 = 0.5;

/// What timesteps are multiplied by in the boundary condition.
const TIMESTEP_SCALING: f64 = 10.0;

/// TCD's gamma: how far below the next level a step goes, before noise brings it back there.
const GAMMA: f64 = 0.3;

/// LCM goes to the estimate itself and adds all the noise of the next level; TCD goes to a level below the next one and adds the
/// rest.
///
/// Source: `LCMScheduler` (arXiv 2310.04378) and `TCDScheduler` (arXiv 2402.19159) of diffusers with their own settings.
pub(super) fn plan(
    sampler: Sampler,
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    skipped: usize,
) -> Result<Plan, ScheduleError> {
    if schedule.as_flow().is_some() {
        return Err(ScheduleError::NoFlow { sampler: sampler.name() });
    }
    let timesteps = timesteps(schedule, sampling.n_steps, sampler)?;
    let timesteps = &timesteps[skipped..];
    let next = timesteps.iter().skip(1).map(|&t| Some(t)).chain([None]);
    let entry = |(&timestep, next): (&usize, Option<usize>)| PlanStep {
        timestep: timestep as f64,
        step: match sampler {
            Sampler::Tcd => partly(schedule, timestep, next.unwrap_or_default()),
            _ => wholly(schedule, timestep, next),
        },
        previous: [0.0; 2],
        estimate: None,
    };
    Ok(Plan {
        initial: 1.0,
        mixture: Forward::variance_preserving(power(schedule, timesteps[0])),
        steps: timesteps.iter().zip(next).map(entry).collect(),
    })
}

/// Some of the timesteps of distillation, spread evenly from the last one down.
fn timesteps(schedule: &NoiseSchedule, n: usize, sampler: Sampler) -> Result<Vec<usize>, ScheduleError> {
    let n_distilled = DISTILLED.min(schedule.len());
    if n > n_distilled {
        return Err(ScheduleError::Distilled { sampler: sampler.name(), n_steps: n, most: n_distilled });
    }
    let stride = schedule.len() / n_distilled;
    Ok((0..n).map(|i| (n_distilled - i * n_distilled / n) * stride - 1).collect())
}

/// To the clean latent, and from there to the next level.
fn wholly(schedule: &NoiseSchedule, timestep: usize, next: Option<usize>) -> Step {
    let clean = step(power(schedule, timestep), 1.0, schedule.prediction(), 0.0);
    let scaled = TIMESTEP_SCALING * timestep as f64;
    let power = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    let (through, out) = (SIGMA_DATA * SIGMA_DATA / power, scaled / power.sqrt());
    let to = Forward::variance_preserving(next.map_or(1.0, |next| schedule.alpha_bar(next)));
    Step {
        sample: to.clean * (out * clean.sample + through),
        prediction: to.clean * out * clean.prediction,
        noise: to.noise,
    }
}

/// To a level below the next one, and from there up to it.
fn partly(schedule: &NoiseSchedule, timestep: usize, next: usize) -> Step {
    let below = schedule.alpha_bar(((1.0 - GAMMA) * next as f64) as usize);
    let direct = step(power(schedule, timestep), below, schedule.prediction(), 0.0);
    // The level at the end is that of timestep 0, to which no noise brings anything back.
    let kept = schedule.alpha_bar(next) / below;
    Step {
        sample: kept.sqrt() * direct.sample,
        prediction: kept.sqrt() * direct.prediction,
        noise: (1.0 - kept).sqrt(),
    }
}
