//! IPO: move the logit to one half and hold it there, instead of raising it for ever.
//!
//! The published loss is `(margin - 1 / (2 b))^2` in the margin of the errors, with `b = 0.5 beta`. It is multiplied by
//! `b^2` here, which moves no minimum: as published its gradient is millions of times smaller than Diffusion-DPO's, and
//! drowns in the epsilon of AdamW.

use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "ipo",
    summary: "prefer the winner relative to a frozen reference, up to a target margin",
    source: "Azar et al. 2023 (arXiv 2310.12036) eq. 17; huggingface/diffusers train_diffusion_dpo.py --loss_type ipo",
    build: paired::<Ipo>,
    not_monotone: Some(
        "the loss is the squared distance from a target margin, and a margin beyond it counts as too much",
    ),
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// The logit that is aimed at: `b` times the published margin `1 / (2 b)`.
const TARGET: f64 = 0.5;

/// `loss = (logit - 1/2)^2`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ipo {
    /// See [`Link::beta`]; the margin of the errors that is aimed at is `1 / beta`.
    beta: f64,
}

impl Default for Ipo {
    fn default() -> Self {
        Self { beta: 5000.0 }
    }
}

impl Settings for Ipo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)
    }
}

impl Link for Ipo {
    const PUBLISHED_BETA: &'static str = "5000 (2500 in a form without the 0.5)";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        (logit - TARGET).powi(2)
    }
}
