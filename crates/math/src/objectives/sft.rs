//! Supervised fine-tuning on the winners: the control every preference method is measured against.

use super::contract::{Objective, PairContext, PairErrors};
use super::corruption::Corruption;
use super::registry::Entry;
use super::settings;
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "sft",
    summary: "fine-tune on the winners alone, ignoring the losers",
    source: "SalesforceAIResearch/DiffusionDPO train.py --sft",
    build: |settings| Ok(Box::new(Sft(settings::parse(settings)?))),
    not_monotone: None,
};

/// Nothing to set.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// `loss = L_w`.
#[derive(Debug)]
struct Sft(Settings);

impl Objective for Sft {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn needs_loser(&self) -> bool {
        false
    }

    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    fn loss(&self, errors: &PairErrors, _: &PairContext) -> Dual {
        errors.winner
    }

    fn logit(&self, _: &PairErrors, _: &PairContext) -> Option<f64> {
        None
    }

    fn settings(&self) -> serde_json::Value {
        settings::print(&self.0)
    }
}
