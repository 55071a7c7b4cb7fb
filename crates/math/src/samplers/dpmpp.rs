//! DPM-Solver++ of orders one to three, multistep, midpoint.

use super::grids::{Point, sigma};
use super::{Estimate, Plan, PlanStep};
use crate::ddim::Step;
use crate::schedule::{Forward, NoiseSchedule, Prediction, ScheduleError};

/// The first and the last step are of order one: there is nothing to look back at, and the last ends without noise. A step of
/// order three follows two others, and is not the last but one of fewer than 15.
///
/// With `m` the estimated clean latent, `q = sigma' / sigma`, `h = -ln q` and `h0` that of the step before, order two is
/// `x' = sqrt((1 - alpha_bar') / (1 - alpha_bar)) x + sqrt(alpha_bar') (1 - q) (m + h / (2 h0) (m - m_before))`.
///
/// Source: arXiv 2211.01095, algorithm 2; `DPMSolverMultistepScheduler` of diffusers with `algorithm_type` dpmsolver++,
/// `solver_type` midpoint, `final_sigmas_type` zero, `lower_order_final`.
pub(super) fn plan(
    schedule: &NoiseSchedule,
    points: &[Point],
    order: usize,
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
    let n_steps = points.len() + skipped;
    let order_of = |i: usize| match order {
        _ if i == 0 || i >= last => 1,
        3 if i > 1 && !(i + 1 == last && n_steps < 15) => 3,
        _ => order.min(2),
    };
    let looks_back = |i: usize| order_of(i) - 1;
    let mut steps = Vec::with_capacity(points.len());
    for (i, point) in points.iter().enumerate() {
        let (from, to) = (point.alpha_bar, points.get(i + 1).map_or(1.0, |next| next.alpha_bar));
        let quotient = sigma(to) / sigma(from);
        let gain = to.sqrt() * (1.0 - quotient);
        let h = -quotient.ln();
        let back = |n: usize| (sigma(points[i - n].alpha_bar) / sigma(points[i + 1 - n].alpha_bar)).ln() / h;
        // Weights of m and of those before it.
        let [own, previous @ ..] = match order_of(i) {
            1 => [gain, 0.0, 0.0],
            2 => {
                let slope = gain / (2.0 * back(1));
                [gain + slope, -slope, 0.0]
            }
            _ => {
                let (r0, r1) = (back(1), back(2));
                let first = to.sqrt() * (1.0 - (1.0 - quotient) / h);
                let second = to.sqrt() * (0.5 - (quotient - 1.0 + h) / (h * h));
                let bend = (first * r0 + second) / (r0 + r1);
                let (near, far) = ((first + bend) / r0, bend / r1);
                [gain + near, -near - far, far]
            }
        };
        let clean = estimate(from)?;
        steps.push(PlanStep {
            timestep: point.timestep,
            step: Step {
                sample: ((1.0 - to) / (1.0 - from)).sqrt() + own * clean.sample,
                prediction: own * clean.prediction,
                noise: 0.0,
            },
            previous,
            estimate: (looks_back(i + 1) > 0 || looks_back(i + 2) > 1).then_some(clean),
        });
    }
    Ok(Plan { initial: 1.0, mixture: Forward::variance_preserving(points[0].alpha_bar), steps })
}
