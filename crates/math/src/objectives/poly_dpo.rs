//! Poly-DPO: Diffusion-DPO that presses more, or less, on the pairs the model is not sure of.

use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "poly-dpo",
    summary: "prefer the winner relative to a frozen reference, with an extra coefficient for undecided pairs",
    source: "ViPO 2026 (arXiv 2604.24953), the formula of its project page; no code was published",
    build: paired::<PolyDpo>,
    not_monotone: None,
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// With `p = sigmoid(logit)` of Diffusion-DPO's logit: `loss = -log p + alpha (1 - p)`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolyDpo {
    /// See [`Link::beta`].
    beta: f64,
    /// How much more an undecided pair pulls than in Diffusion-DPO, less where it is negative; 0 is Diffusion-DPO.
    alpha: f64,
}

impl Default for PolyDpo {
    fn default() -> Self {
        Self { beta: 5000.0, alpha: 0.0 }
    }
}

impl Settings for PolyDpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        // The slope in the logit is -(1 - p) (1 + alpha p), and p reaches 1
        let wanted = "above -1, where decided pairs would be undone, and finite";
        settings::in_range("alpha", self.alpha, wanted, |alpha| alpha > -1.0 && alpha.is_finite())
    }
}

impl Link for PolyDpo {
    const PUBLISHED_BETA: &'static str = "2000 to 5000 with Diffusion-DPO";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        // 1 - p = sigmoid(-logit), without cancellation
        (-logit).sigmoid() * self.alpha - logit.log_sigmoid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_alpha_beyond_which_decided_pairs_are_undone_is_refused() {
        for alpha in [-1.0, -1.5] {
            let error = settings::parse::<PolyDpo>(&json!({ "alpha": alpha })).expect_err("bad settings");
            let message = error.to_string();
            assert!(message.starts_with("setting \"alpha\" must be above -1"), "{message}");
        }
        assert!(settings::parse::<PolyDpo>(&json!({"alpha": -0.99})).is_ok());
    }

    #[test]
    fn the_slope_is_that_of_diffusion_dpo_times_one_plus_alpha_p() {
        for alpha in [0.0, 8.0, -0.5] {
            let method = PolyDpo { alpha, ..PolyDpo::default() };
            for logit in [-3.0, 0.0, 1.0, 20.0].map(Dual::winner) {
                let (slope, p) = (Link::loss(&method, logit).d[0], logit.sigmoid().value);
                let of_dpo = (-logit.log_sigmoid()).d[0];
                assert!(
                    (slope - of_dpo * (1.0 + alpha * p)).abs() <= 1e-14 * slope.abs(),
                    "{alpha} {logit:?}"
                );
            }
        }
    }
}
