//! DMPO: bring the probability that the winner is better to a target near 1, by the divergence of the two.
//!
//! Unlike the cross entropy of [`super::cdpo`], which has the same minimum, the divergence is taken from the model's
//! side: a pair that the model is sure about, rightly or wrongly, hardly pulls.

use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::{Dual, log_sigmoid};
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "dmpo",
    summary: "match the winner's probability, relative to a frozen reference, to a target",
    source: "Li et al. 2025 (arXiv 2507.07510); AIDC-AI/Diffusion-SDPO train.py --train_method dmpo",
    build: paired::<Dmpo>,
    not_monotone: Some("a probability beyond the target counts as too much"),
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// With `p = sigmoid(logit)` and `q = 1 - alpha`: `loss = p log(p / q) + (1 - p) log((1 - p) / (1 - q))`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dmpo {
    /// See [`Link::beta`].
    beta: f64,
    /// One less the probability that is aimed at.
    alpha: f64,
}

impl Default for Dmpo {
    fn default() -> Self {
        Self { beta: 2000.0, alpha: 0.01 }
    }
}

impl Settings for Dmpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        let wanted = "above 0 and below 0.5, which prefers neither image";
        settings::in_range("alpha", self.alpha, wanted, |alpha| alpha > 0.0 && alpha < 0.5)
    }
}

impl Link for Dmpo {
    const PUBLISHED_BETA: &'static str = "2000 (SD1.5) to 6000 (SDXL)";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        let target = ((1.0 - self.alpha) / self.alpha).ln();
        let side = |logit: Dual, target: f64| logit.sigmoid() * (logit.log_sigmoid() - log_sigmoid(target));
        side(logit, target) + side(-logit, -target)
    }
}
