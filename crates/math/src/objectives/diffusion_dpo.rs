//! Diffusion-DPO: raise the odds that the policy, against its frozen start, denoises the winner better than the loser.
//!
//! The implicit accuracy that goes with the loss has two published tie rules, see [`super::TieRule`].

use super::contract::{Objective, PairContext, PairErrors};
use super::corruption::Corruption;
use super::registry::Entry;
use super::relative::{beta_warnings, relative_logit};
use super::settings;
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "diffusion-dpo",
    summary: "prefer the winner relative to a frozen reference",
    source: "Wallace et al. 2024 (arXiv 2311.12908) eq. 14; SalesforceAIResearch/DiffusionDPO train.py",
    build: |settings| {
        let settings: Settings = settings::parse(settings)?;
        settings::positive("beta", settings.beta)?;
        Ok(Box::new(DiffusionDpo(settings)))
    },
    not_monotone: None,
};

/// What can be set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Sharpness of the preference, per unit of mean squared error; multiplied by 0.5 in the logit.
    beta: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { beta: 5000.0 }
    }
}

/// `loss = -log sigmoid(-0.5 beta ((Lth_w - Lth_l) - (Lref_w - Lref_l)))`.
#[derive(Debug)]
struct DiffusionDpo(Settings);

impl Objective for DiffusionDpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    fn loss(&self, errors: &PairErrors, _: &PairContext) -> Dual {
        -relative_logit(errors, self.0.beta).log_sigmoid()
    }

    fn logit(&self, errors: &PairErrors, _: &PairContext) -> Option<f64> {
        Some(relative_logit(errors, self.0.beta).value)
    }

    fn settings(&self) -> serde_json::Value {
        settings::print(&self.0)
    }

    fn warnings(&self) -> Vec<String> {
        beta_warnings(self.0.beta)
    }
}
