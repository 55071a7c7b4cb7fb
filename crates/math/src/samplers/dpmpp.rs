//! DPM-Solver++ of order two, multistep, midpoint.

use super::grids::{Point, sigma};
use super::{Estimate, Plan, PlanStep};
use crate::ddim::Step;
use crate::schedule::{Forward, NoiseSchedule, Prediction, ScheduleError};

/// The first and the last step are of order one: there is nothing to look back at, and the last ends without noise.
///
/// With `m` the estimated clean latent, `q = sigma' / sigma`, `h = -ln q` and `h0` that of the step before:
/// `x' = sqrt((1 - alpha_bar') / (1 - alpha_bar)) x + sqrt(alpha_bar') (1 - q) (m + h / (2 h0) (m - m_before))`.
///
/// Source: arXiv 2211.01095, algorithm 2; `DPMSolverMultistepScheduler` of diffusers with `algorithm_type` dpmsolver++,
/// `solver_type` midpoint, `final_sigmas_type` zero.
pub(super) fn plan(
    schedule: &NoiseSchedule,
    points: &[Point],
    skipped: usize,
) -> Result<Plan, ScheduleError> {
    let estimate = |alpha_bar: f64| {
        let Forward { clean, noise } = Forward::variance_preserving(alpha_bar);
        match schedule.prediction() {
            Prediction::Epsilon => Ok(Estimate { sample: 1.0 / clean, prediction: -noise / clean }),
            Prediction::VPrediction => Ok(Estimate { sample: clean, prediction: -noise }),
            Prediction::Flow => Err(ScheduleError::NoFlow { sampler: "dpmpp-2m" }),
        }
    };
    let points = &points[skipped..];
    let last = points.len() - 1;
    let looks_back = |i: usize| 0 < i && i < last;
    let mut steps = Vec::with_capacity(points.len());
    for (i, point) in points.iter().enumerate() {
        let (from, to) = (point.alpha_bar, points.get(i + 1).map_or(1.0, |next| next.alpha_bar));
        let quotient = sigma(to) / sigma(from);
        let gain = to.sqrt() * (1.0 - quotient);
        let slope = if looks_back(i) {
            let before = (sigma(points[i - 1].alpha_bar) / sigma(from)).ln();
            -quotient.ln() / (2.0 * before)
        } else {
            0.0
        };
        let own = gain * (1.0 + slope);
        let clean = estimate(from)?;
        steps.push(PlanStep {
            timestep: point.timestep,
            step: Step {
                sample: ((1.0 - to) / (1.0 - from)).sqrt() + own * clean.sample,
                prediction: own * clean.prediction,
                noise: 0.0,
            },
            previous: -gain * slope,
            estimate: looks_back(i + 1).then_some(clean),
        });
    }
    Ok(Plan { initial: 1.0, mixture: Forward::variance_preserving(points[0].alpha_bar), steps })
}
