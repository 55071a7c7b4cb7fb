//! Heun's method: each step of Euler's is corrected by the slope at its end, for a second call of the network.

use super::euler::{initial, levels};
use super::{Plan, PlanStep};
use crate::ddim::{Sampling, Step};
use crate::level::Level;
use crate::schedule::{NoiseSchedule, ScheduleError};

/// Two calls for every step but the last, which ends without noise and is Euler's.
///
/// With the clean latents `z0` and `z1` that are estimated before and after Euler's step to `x1`, halving the sum of both slopes is
/// `x1 + c (z0 - z1)`, on a table of betas and on a flow alike.
///
/// Source: arXiv 2206.00364, algorithm 1; `HeunDiscreteScheduler` and `FlowMatchHeunDiscreteScheduler` of diffusers.
pub(super) fn plan(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    skipped: usize,
) -> Result<Plan, ScheduleError> {
    let levels = levels(schedule, sampling, 0.0)?;
    let levels = &levels[skipped..];
    let (prediction, is_flow) = (schedule.prediction(), schedule.as_flow().is_some());
    let n_steps = levels.len() - 1;
    let mut steps = Vec::with_capacity(2 * n_steps);
    for (i, two) in levels.windows(2).enumerate() {
        let (from, to) = (two[0], two[1]);
        let corrects = i + 1 < n_steps;
        steps.push(PlanStep {
            timestep: from.timestep(),
            step: from.step_to(to, prediction, 0.0),
            previous: [0.0; 2],
            estimate: corrects.then(|| from.estimate(prediction)),
        });
        if corrects {
            let (weight, clean) = (correction(from, to, is_flow), to.estimate(prediction));
            steps.push(PlanStep {
                timestep: to.timestep(),
                step: Step {
                    sample: 1.0 - weight * clean.sample,
                    prediction: -weight * clean.prediction,
                    noise: 0.0,
                },
                previous: [weight, 0.0],
                estimate: None,
            });
        }
    }
    Ok(Plan { initial: initial(schedule, sampling, levels[0]), mixture: levels[0].mixture(), steps })
}

/// Half the step over the noise at its end, in the units of the slope: of the noise level on a flow, of noise over signal on a table.
fn correction(from: Level, to: Level, is_flow: bool) -> f64 {
    match is_flow {
        true => (to.sigma() - from.sigma()) / (2.0 * to.sigma()),
        false => to.clean() * (to.ratio() - from.ratio()) / (2.0 * to.ratio()),
    }
}
