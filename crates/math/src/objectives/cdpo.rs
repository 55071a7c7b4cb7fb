//! cDPO: Diffusion-DPO for labels of which a known fraction is wrong, in two forms.

use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "cdpo",
    summary: "prefer the winner relative to a frozen reference, with noisy labels",
    source: "Mitchell 2023 (A note on DPO with noisy preferences) eq. 3; eric-mitchell/direct-preference-optimization \
             trainers.py; form robust: Chowdhury et al. 2024 (arXiv 2403.00409), huggingface/trl dpo_trainer.py",
    build: paired::<Cdpo>,
    not_monotone: Some(
        "form conservative limits a pair's confidence to that of the labels, and counts more as too much",
    ),
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// What the fraction of wrong labels is made into.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// The expected loss over the labels as they may be: the logit has a finite target.
    #[default]
    Conservative,
    /// The loss whose mean over wrong and right labels is that of clean labels.
    Robust,
}

/// With `s` the smoothing, `conservative`: `-(1 - s) log sigmoid(logit) - s log sigmoid(-logit)`;
/// `robust`: `(-(1 - s) log sigmoid(logit) + s log sigmoid(-logit)) / (1 - 2 s)`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cdpo {
    /// See [`Link::beta`].
    beta: f64,
    /// Fraction of pairs whose label is taken to be wrong; 0 is Diffusion-DPO.
    label_smoothing: f64,
    /// What that fraction is made into.
    form: Form,
}

impl Default for Cdpo {
    fn default() -> Self {
        Self { beta: 5000.0, label_smoothing: 0.1, form: Form::Conservative }
    }
}

impl Settings for Cdpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        let wanted = "at least 0 and below 0.5, where labels say nothing";
        settings::in_range("label_smoothing", self.label_smoothing, wanted, |s| (0.0..0.5).contains(&s))
    }
}

impl Link for Cdpo {
    const PUBLISHED_BETA: &'static str = "2000 to 5000 without smoothing";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        let wrong = self.label_smoothing;
        let given_label = logit.log_sigmoid() * (1.0 - wrong);
        let flipped_label = (-logit).log_sigmoid() * wrong;
        match self.form {
            Form::Conservative => -given_label - flipped_label,
            Form::Robust => (flipped_label - given_label) / (1.0 - 2.0 * wrong),
        }
    }
}
