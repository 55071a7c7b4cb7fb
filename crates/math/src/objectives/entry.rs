//! What the list of objectives says about a method.

use super::beta::BetaConvention;
use super::method::Built;
use super::settings::SettingsError;
use serde_json::Value;

/// One method, as the list shows it.
#[derive(Debug)]
pub struct Entry {
    /// The kebab-case name users type.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Where it comes from: paper and reference code.
    pub source: &'static str,
    /// Builds it from a table of its own settings; `null` gives the defaults.
    pub(super) build: fn(&Value) -> Result<Built, SettingsError>,
    /// Why a better winner or a worse loser may raise the loss; `None` where it may not, which is tested.
    pub not_monotone: Option<&'static str>,
    /// Why its derivative is not that of its value; `None` where it is, which is tested.
    pub detached: Option<&'static str>,
    /// What its settings were in published runs.
    pub published: &'static [Published],
    /// The flags of published scripts that are short for a setting of this method.
    pub shorthands: &'static [Shorthand],
    /// In which conventions other programs count its `beta`, ours first; empty where that is no factor of a difference of errors.
    pub beta_conventions: &'static [BetaConvention],
}

impl Entry {
    /// The setting that a flag of published scripts is short for, if it is one of this method.
    pub fn short_for(&self, flag: &str) -> Option<&'static str> {
        self.shorthands.iter().find(|shorthand| shorthand.flag == flag).map(|shorthand| shorthand.key)
    }
}

/// The settings of published runs. Rates that their own authors or others found not to train are not among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Which `form` of the method, where it has several.
    pub form: Option<&'static str>,
    /// Whether every weight was trained, or a LoRA.
    pub full: bool,
    /// Whether the networks predict a flow, whose errors are larger than those of noise: its betas are smaller.
    pub flow: bool,
    /// Lowest and highest learning rate, with what `scale_lr` multiplies it by.
    pub learning_rate: (f64, f64),
    /// Lowest and highest beta, where the method has one.
    pub beta: Option<(f64, f64)>,
    /// Where.
    pub source: &'static str,
}

/// A LoRA by Diffusion-DPO, which stands in for methods of which no LoRA was published.
pub const DPO_LORA: Published = Published {
    form: None,
    full: false,
    flow: false,
    learning_rate: (1e-5, 1e-5),
    beta: Some((2000.0, 5000.0)),
    source: "diffusers' research project diffusion_dpo",
};

/// The same on a flow. Of the rates, 1e-4 and above are reported to collapse as often as to train.
pub const FLOW_DPO_LORA: Published = Published {
    form: None,
    full: false,
    flow: true,
    learning_rate: (1e-5, 3e-4),
    beta: Some((100.0, 2000.0)),
    source: "flow_grpo, Flow-Factory and verl-omni on SD3.5-medium",
};

/// Of methods of Diffusion-DPO's logit, half of `beta` times a difference of mean errors.
pub const LOGIT_BETA: &[BetaConvention] =
    &[BetaConvention::Mean, BetaConvention::NoHalf, BetaConvention::Sum, BetaConvention::SumNoHalf];

/// Of methods whose published formula has no half to begin with.
pub const ERROR_BETA: &[BetaConvention] = &[BetaConvention::Mean, BetaConvention::Sum];

/// A flag of published scripts, and the setting it is short for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shorthand {
    /// The flag, without dashes.
    pub flag: &'static str,
    /// The key of the setting.
    pub key: &'static str,
}

/// The flag of the methods that multiply differences of errors by `beta`.
pub const BETA_DPO: Shorthand = Shorthand { flag: "beta_dpo", key: "beta" };
