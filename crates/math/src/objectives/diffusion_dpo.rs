//! Diffusion-DPO: raise the odds that the policy, against its frozen start, denoises the winner better than the loser.
//!
//! The implicit accuracy that goes with the loss has two published tie rules, see [`super::TieRule`].

use super::entry::{BETA_DPO, DPO_LORA, Entry, FLOW_DPO_LORA, LOGIT_BETA, Published};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "diffusion-dpo",
    summary: "prefer the winner relative to a frozen reference",
    source: "Wallace et al. 2024 (arXiv 2311.12908) eq. 14; SalesforceAIResearch/DiffusionDPO train.py",
    build: paired::<DiffusionDpo>,
    not_monotone: None,
    detached: None,
    // The paper's 2e-8, which its code multiplies by 1000, and the scripts' default of 5e-4 do not train
    published: &[
        Published {
            form: None,
            full: true,
            flow: false,
            learning_rate: (1e-6, 2.048e-5),
            beta: Some((2000.0, 5000.0)),
            source: "arXiv 2311.12908, its launchers, arXiv 2406.06424",
        },
        DPO_LORA,
        Published {
            form: None,
            full: true,
            flow: true,
            learning_rate: (1e-6, 5e-6),
            beta: Some((1000.0, 5000.0)),
            source: "Whynot0101/Linear-DPO scripts for SD3, arXiv 2605.09433",
        },
        FLOW_DPO_LORA,
    ],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// `loss = -log sigmoid(-0.5 beta ((Lth_w - Lth_l) - (Lref_w - Lref_l)))`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DiffusionDpo {
    /// See [`Link::beta`].
    beta: f64,
}

impl Default for DiffusionDpo {
    fn default() -> Self {
        Self { beta: 5000.0 }
    }
}

impl Settings for DiffusionDpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)
    }
}

impl Link for DiffusionDpo {
    const PUBLISHED_BETA: &'static str = "2000 to 5000";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        -logit.log_sigmoid()
    }
}
