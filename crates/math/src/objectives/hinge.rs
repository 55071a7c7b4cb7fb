//! Hinge: push with one strength until the logit is 1, then leave the pair alone.

use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "hinge",
    summary: "prefer the winner relative to a frozen reference until the margin is reached",
    source: "Liu et al. 2023 (arXiv 2309.06657); huggingface/diffusers train_diffusion_dpo.py --loss_type hinge",
    build: paired::<Hinge>,
    not_monotone: None,
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// `loss = max(0, 1 - logit)`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Hinge {
    /// See [`Link::beta`]; pairs whose errors differ by `2 / beta` are done.
    beta: f64,
}

impl Default for Hinge {
    fn default() -> Self {
        Self { beta: 5000.0 }
    }
}

impl Settings for Hinge {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)
    }
}

impl Link for Hinge {
    const PUBLISHED_BETA: &'static str = "5000 (2500 in a form without the 0.5)";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        // The constant first: at the corner the slope is 0, as PyTorch's relu has it
        Dual::constant(0.0).max(1.0 - logit)
    }
}
