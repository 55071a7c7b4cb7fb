//! What methods with a reference share: has the policy moved towards the winner more than towards the loser?

use super::corruption::Corruption;
use super::inputs::{Needs, Pair};
use super::method::{Loss, Paired};
use super::settings::Settings;
use crate::dual::Dual;
use crate::number;

/// A method whose loss is a function of Diffusion-DPO's logit alone: its settings, and that function.
pub trait Link: Settings + std::fmt::Debug + Send + Sync {
    /// What published runs set `beta` to, in our convention.
    const PUBLISHED_BETA: &'static str;

    /// Sharpness of the preference, per unit of mean squared error; multiplied by 0.5 in the logit.
    fn beta(&self) -> f64;

    /// As [`Paired::corruption`].
    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    /// The loss of one pair.
    fn loss(&self, logit: Dual) -> Dual;
}

impl<L: Link> Paired for L {
    fn needs(&self) -> Needs {
        Needs::REFERENCE
    }

    fn corruption(&self) -> Corruption {
        Link::corruption(self)
    }

    fn loss(&self, pair: &Pair) -> Loss {
        let logit = relative_logit(pair, self.beta());
        Loss { value: Link::loss(self, logit), logit: Some(logit.value) }
    }

    fn warnings(&self) -> Vec<String> {
        beta_warnings(self.beta(), L::PUBLISHED_BETA)
    }
}

/// `-0.5 beta ((Lth_w - Lth_l) - (Lref_w - Lref_l))`, positive where the policy moved towards the winner.
///
/// # Units
/// Errors are means over all elements of an image, so `beta` is per unit of mean squared error: the 0.5 and the mean
/// are the convention of every released implementation, while the DPO paper's pseudo-code uses sums and no 0.5.
pub fn relative_logit(pair: &Pair, beta: f64) -> Dual {
    (pair.loser.drift() - pair.winner.drift()) * (0.5 * beta)
}

/// A warning for a `beta` from another convention; flow models use it from 100.
pub fn beta_warnings(beta: f64, published: &str) -> Vec<String> {
    if (100.0..=20_000.0).contains(&beta) {
        return Vec::new();
    }
    vec![format!(
        "beta {} is outside 100..20000: here it multiplies mean squared errors by 0.5 beta, and published runs use {published}",
        number(beta)
    )]
}
