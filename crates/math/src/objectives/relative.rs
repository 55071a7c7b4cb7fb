//! The comparison all reference-based methods share: has the policy moved towards the winner more than the loser?

use super::contract::PairErrors;
use crate::dual::Dual;

/// `-0.5 beta ((Lth_w - Lth_l) - (Lref_w - Lref_l))`, positive where the policy moved towards the winner.
///
/// # Units
/// Errors are means over all elements of an image, so `beta` is per unit of mean squared error: the 0.5 and the mean
/// are the convention of every released implementation, while the DPO paper's pseudo-code uses sums and no 0.5.
///
/// Each error is first compared with its own reference: the two are nearly equal, so that difference is exact, and
/// the logit is exactly 0 where policy and reference agree.
pub fn relative_logit(errors: &PairErrors, beta: f64) -> Dual {
    let (reference_winner, reference_loser) = errors.expect_reference();
    let winner_drift = errors.winner - reference_winner;
    let loser_drift = errors.loser - reference_loser;
    (loser_drift - winner_drift) * (0.5 * beta)
}

/// A warning for a `beta` from another convention; published runs use 2000 to 5000, flow models from 100.
pub fn beta_warnings(beta: f64) -> Vec<String> {
    if (100.0..=20_000.0).contains(&beta) {
        return Vec::new();
    }
    vec![format!(
        "beta {beta} is outside 100..20000: here it multiplies mean squared errors by 0.5 beta, and published runs use 2000 to 5000"
    )]
}
