//! Supervised fine-tuning on the winners: the control every preference method is measured against.

use super::entry::{DPO_LORA, Entry, Published, Shorthand};
use super::inputs::{Needs, NoiseLevel, Pair};
use super::method::{Loss, Paired, paired};
use super::settings::{self, Settings, SettingsError};
use crate::flow::Weighting;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "sft",
    summary: "fine-tune on the winners alone, ignoring the losers",
    source: "SalesforceAIResearch/DiffusionDPO train.py --sft",
    build: paired::<Sft>,
    not_monotone: None,
    detached: None,
    published: &[
        Published {
            form: None,
            full: true,
            flow: false,
            learning_rate: (2.048e-6, 2.048e-5),
            beta: None,
            source: "arXiv 2311.12908, SalesforceAIResearch/DiffusionDPO train.py",
        },
        Published { beta: None, ..DPO_LORA },
    ],
    shorthands: &[
        Shorthand { flag: "snr_gamma", key: "snr_gamma" },
        Shorthand { flag: "min_snr_gamma", key: "snr_gamma" },
    ],
    beta_conventions: &[],
};

/// `loss = w L_w` with `w = 1`, `min(SNR, gamma)` per squared error of the clean latent, or a weight by noise level.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sft {
    /// Largest signal-to-noise ratio at which an error of the clean latent still counts more (min-SNR weighting); without
    /// it every timestep's error of the output counts the same.
    snr_gamma: Option<f64>,
    /// Weight of the output's error by noise level, as in the scripts for flow models.
    weighting_scheme: Weighting,
}

impl Settings for Sft {
    fn check(&self) -> Result<(), SettingsError> {
        let Some(gamma) = self.snr_gamma else { return Ok(()) };
        settings::positive("snr_gamma", gamma)?;
        if self.weighting_scheme == Weighting::None {
            return Ok(());
        }
        let wanted = "none with snr_gamma, which is a weighting too";
        let found = format!("{:?}", self.weighting_scheme);
        Err(SettingsError::OutOfRange { key: "weighting_scheme", wanted, found })
    }
}

impl Sft {
    /// Weight of an output's squared error.
    ///
    /// Source: Hang et al. 2023 (arXiv 2303.09556) eq. 8, written for any prediction type as diffusers
    /// `examples/text_to_image/train_text_to_image.py` has it for two: `min(SNR, gamma)` over SNR or over SNR + 1.
    fn weight(&self, level: NoiseLevel) -> f64 {
        match self.snr_gamma {
            // Pure noise predicted from pure noise implies nothing about the clean latent; the limit is 1.
            Some(gamma) if level.clean_gain > 0.0 => level.snr().min(gamma) / level.clean_gain,
            Some(_) => 1.0,
            None => self.weighting_scheme.at(level.sigma()),
        }
    }
}

impl Paired for Sft {
    fn needs(&self) -> Needs {
        Needs::WINNER
    }

    fn loss(&self, pair: &Pair) -> Loss {
        Loss { value: pair.winner.error * self.weight(pair.level), logit: None }
    }
}
