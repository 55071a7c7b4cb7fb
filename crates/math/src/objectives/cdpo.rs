//! cDPO: Diffusion-DPO for labels of which a known share is wrong, in two forms.

use super::registry::Entry;
use super::relative::{Link, Relative};
use super::settings::{self, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: Settings::NAME,
    summary: "prefer the winner relative to a frozen reference, knowing that some labels are wrong",
    source: "Mitchell 2023 (A note on DPO with noisy preferences) eq. 3; eric-mitchell/direct-preference-optimization \
             trainers.py; form robust: Chowdhury et al. 2024 (arXiv 2403.00409), huggingface/trl dpo_trainer.py",
    build: |settings| {
        let settings: Settings = settings::parse(settings)?;
        settings.check()?;
        Ok(Box::new(Relative(settings)))
    },
    not_monotone: Some(
        "form conservative holds a pair no surer than the labels are, and counts more as too much",
    ),
};

/// What the share of wrong labels is made into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// The expected loss over the labels as they may be: the logit has a finite target.
    #[default]
    Conservative,
    /// The loss whose mean over wrong and right labels is that of clean labels.
    Robust,
}

/// What can be set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// See [`Link::beta`].
    beta: f64,
    /// Share of pairs whose label is taken to be wrong; 0 is Diffusion-DPO.
    label_smoothing: f64,
    /// What that share is made into.
    form: Form,
}

impl Default for Settings {
    fn default() -> Self {
        Self { beta: 5000.0, label_smoothing: 0.1, form: Form::Conservative }
    }
}

impl Settings {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        if (0.0..0.5).contains(&self.label_smoothing) {
            return Ok(());
        }
        let (key, wanted) = ("label_smoothing", "at least 0 and below 0.5, where labels say nothing");
        Err(SettingsError::OutOfRange { key, wanted, found: self.label_smoothing.to_string() })
    }
}

/// With `s` the smoothing, `conservative`: `-(1 - s) log sigmoid(logit) - s log sigmoid(-logit)`;
/// `robust`: `(-(1 - s) log sigmoid(logit) + s log sigmoid(-logit)) / (1 - 2 s)`.
impl Link for Settings {
    const NAME: &'static str = "cdpo";
    const PUBLISHED_BETA: &'static str = "2000 to 5000 without smoothing";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, logit: Dual) -> Dual {
        let wrong = self.label_smoothing;
        let as_labeled = logit.log_sigmoid() * (1.0 - wrong);
        let turned_around = (-logit).log_sigmoid() * wrong;
        match self.form {
            Form::Conservative => -as_labeled - turned_around,
            Form::Robust => (turned_around - as_labeled) / (1.0 - 2.0 * wrong),
        }
    }
}
