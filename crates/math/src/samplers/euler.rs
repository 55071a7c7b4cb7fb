//! Euler's method along sigma, deterministic or with fresh noise after each step.
//!
//! A step keeps the estimated clean latent and noise and mixes them again at the next level, so it is DDIM's between the same
//! levels: with eta 0 Euler's, with eta 1 the ancestral one. What differs is the grid, and that the last step ends without noise.

use super::grids::{self, Point};
use super::{Plan, PlanStep};
use crate::ddim::{Sampling, Spacing, step};
use crate::schedule::{Forward, NoiseSchedule, Prediction, ScheduleError};

/// Source: `EulerDiscreteScheduler` and `EulerAncestralDiscreteScheduler` of diffusers; arXiv 2206.00364, algorithm 1.
pub(super) fn plan(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
    skipped: usize,
    eta: f64,
) -> Result<Plan, ScheduleError> {
    let mut points = grids::euler(schedule, sampling)?;
    // The ancestral class has no such setting.
    if sampling.use_karras_sigmas && eta == 0.0 && schedule.prediction() != Prediction::Flow {
        points = grids::euler_karras(schedule, &points);
    }
    let points = &points[skipped..];
    let next = points.iter().skip(1).map(|point| point.alpha_bar).chain([1.0]);
    let entry = |(point, to): (&Point, f64)| PlanStep {
        timestep: point.timestep,
        step: step(point.alpha_bar, to, schedule.prediction(), eta),
        previous: [0.0; 2],
        estimate: None,
    };
    let mixture = mixture(schedule.prediction(), points[0].alpha_bar);
    // diffusers starts these two spacings from sigma, not from sqrt(1 + sigma^2).
    let shrinks = sampling.spacing != Spacing::Leading;
    Ok(Plan {
        initial: if shrinks { mixture.noise } else { 1.0 },
        mixture,
        steps: points.iter().zip(next).map(entry).collect(),
    })
}

/// The mixture of this signal power, on a flow's straight path where the latent lives there.
fn mixture(prediction: Prediction, alpha_bar: f64) -> Forward {
    let round = Forward::variance_preserving(alpha_bar);
    if prediction == Prediction::Flow {
        Forward::flow(round.noise / (round.clean + round.noise))
    } else {
        round
    }
}
