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
    build: |settings| {
        let settings: Settings = settings::parse(settings)?;
        settings.snr_gamma.map_or(Ok(()), |gamma| settings::positive("snr_gamma", gamma))?;
        Ok(Box::new(Sft(settings)))
    },
    not_monotone: None,
};

/// What can be set.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Largest signal-to-noise ratio at which an error of the clean latent still counts more (min-SNR weighting); without
    /// it every timestep's error of the output counts the same.
    snr_gamma: Option<f64>,
}

/// `loss = w L_w` with `w = 1`, or `min(SNR, gamma)` per squared error of the clean latent.
#[derive(Debug)]
struct Sft(Settings);

impl Sft {
    /// Weight of an output's squared error.
    ///
    /// Source: Hang et al. 2023 (arXiv 2303.09556) eq. 8, written for any prediction type as diffusers
    /// `examples/text_to_image/train_text_to_image.py` has it for two: `min(SNR, gamma)` over SNR or over SNR + 1.
    fn weight(&self, context: &PairContext) -> f64 {
        match self.0.snr_gamma {
            // Pure noise predicted from pure noise implies nothing about the clean latent; the limit is 1.
            Some(gamma) if context.clean_gain > 0.0 => context.snr().min(gamma) / context.clean_gain,
            _ => 1.0,
        }
    }
}

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

    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual {
        errors.winner * self.weight(context)
    }

    fn logit(&self, _: &PairErrors, _: &PairContext) -> Option<f64> {
        None
    }

    fn settings(&self) -> serde_json::Value {
        settings::print(&self.0)
    }
}
