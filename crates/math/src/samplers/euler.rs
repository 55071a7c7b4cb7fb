//! Euler's method along sigma, deterministic or with fresh noise after each step.
//!
//! A step keeps the estimated clean latent and noise and mixes them again at the next level, so it is DDIM's between the same
//! levels: with eta 0 Euler's, with eta 1 the ancestral one. What differs is the grid, and that the last step ends without noise.

use super::{Plan, PlanStep, grids};
use crate::ddim::{Sampling, Spacing};
use crate::level::Level;
use crate::schedule::{NoiseSchedule, ScheduleError};

/// Source: `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler` and `FlowMatchEulerDiscreteScheduler` of diffusers; arXiv
/// 2206.00364, algorithm 1.
pub(super) fn plan(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    skipped: usize,
    eta: f64,
) -> Result<Plan, ScheduleError> {
    let levels = levels(schedule, sampling, eta)?;
    let levels = &levels[skipped..];
    let entry = |two: &[Level]| PlanStep {
        timestep: two[0].timestep(),
        step: two[0].step_to(two[1], schedule.prediction(), eta),
        previous: [0.0; 2],
        estimate: None,
    };
    Ok(Plan {
        initial: initial(schedule, sampling, levels[0]),
        mixture: levels[0].mixture(),
        steps: levels.windows(2).map(entry).collect(),
    })
}

/// Standard deviation of the noise to start from at this level.
pub(super) fn initial(schedule: &NoiseSchedule, sampling: &Sampling, first: Level) -> f64 {
    // diffusers starts these two spacings from sigma, not from sqrt(1 + sigma^2).
    let shrinks = sampling.spacing != Spacing::Leading && schedule.as_flow().is_none();
    if shrinks { first.mixture().noise } else { 1.0 }
}

/// Levels from the noisiest on, and the clean latent at last.
pub(super) fn levels(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    eta: f64,
) -> Result<Vec<Level>, ScheduleError> {
    match sampling.flow_levels(schedule)? {
        Some(levels) => Ok(levels),
        None => table_levels(schedule, sampling, eta),
    }
}

/// Levels over a table of betas, and the clean latent at last.
fn table_levels(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    eta: f64,
) -> Result<Vec<Level>, ScheduleError> {
    let mut levels = grids::euler(schedule, sampling)?;
    // The ancestral class has no such setting.
    if sampling.use_karras_sigmas && eta == 0.0 {
        levels = grids::euler_karras(schedule, &levels);
    }
    levels.push(levels[0].without_noise());
    Ok(levels)
}
