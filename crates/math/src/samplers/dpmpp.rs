//! DPM-Solver++ of orders one to three, multistep, midpoint.

use super::{Plan, PlanStep};
use crate::ddim::Step;
use crate::level::Level;
use crate::schedule::Prediction;

/// The first and the last step are of order one: there is nothing to look back at, and the last ends without noise. A step of
/// order three follows two others, and is not the last but one of fewer than 15.
///
/// With a latent mixed as `a z + b e`, `m` the estimated clean latent, `q` the noise over signal after the step in that before it,
/// `h = -ln q` and `h0` that of the step before, order two is
/// `x' = b' / b x + a' (1 - q) (m + h / (2 h0) (m - m_before))`, on a table of betas and on a flow alike.
///
/// Source: arXiv 2211.01095, algorithm 2; `DPMSolverMultistepScheduler` of diffusers with `algorithm_type` dpmsolver++,
/// `solver_type` midpoint, `final_sigmas_type` zero, `lower_order_final`.
pub(super) fn plan(prediction: Prediction, levels: &[Level], order: usize, skipped: usize) -> Plan {
    let levels = &levels[skipped..];
    let last = levels.len() - 1;
    let n_steps = levels.len() + skipped;
    let order_of = |i: usize| match order {
        _ if i == 0 || i >= last => 1,
        3 if i > 1 && !(i + 1 == last && n_steps < 15) => 3,
        _ => order.min(2),
    };
    let looks_back = |i: usize| order_of(i) - 1;
    let mut steps = Vec::with_capacity(levels.len());
    for (i, &from) in levels.iter().enumerate() {
        let to = levels.get(i + 1).copied().unwrap_or(from.without_noise());
        let quotient = to.ratio() / from.ratio();
        let gain = to.clean() * (1.0 - quotient);
        let h = -quotient.ln();
        let back = |n: usize| (levels[i - n].ratio() / levels[i + 1 - n].ratio()).ln() / h;
        // Weights of m and of those before it.
        let [own, previous @ ..] = match order_of(i) {
            1 => [gain, 0.0, 0.0],
            2 => {
                let slope = gain / (2.0 * back(1));
                [gain + slope, -slope, 0.0]
            }
            _ => {
                let (r0, r1) = (back(1), back(2));
                let first = to.clean() * (1.0 - (1.0 - quotient) / h);
                let second = to.clean() * (0.5 - (quotient - 1.0 + h) / (h * h));
                let bend = (first * r0 + second) / (r0 + r1);
                let (near, far) = ((first + bend) / r0, bend / r1);
                [gain + near, -near - far, far]
            }
        };
        let clean = from.estimate(prediction);
        steps.push(PlanStep {
            timestep: from.timestep(),
            step: Step {
                sample: to.noise_over(from) + own * clean.sample,
                prediction: own * clean.prediction,
                noise: 0.0,
            },
            previous,
            estimate: (looks_back(i + 1) > 0 || looks_back(i + 2) > 1).then_some(clean),
        });
    }
    Plan { initial: 1.0, mixture: levels[0].mixture(), steps }
}
