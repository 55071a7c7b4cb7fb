//! The list of objectives, walked by help texts, reference docs and conformance tests.

use super::contract::Objective;
use super::settings::SettingsError;
use super::{ddim_inpo, diffusion_dpo, mapo, sft};
use crate::nearest::nearest;
use serde_json::Value;

/// One objective, as the list shows it.
#[derive(Debug)]
pub struct Entry {
    /// The kebab-case name users type.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Where it comes from: paper and reference code.
    pub source: &'static str,
    /// Builds it from a table of settings; `null` gives the defaults.
    pub build: fn(&Value) -> Result<Box<dyn Objective>, SettingsError>,
    /// Why a better winner or a worse loser may raise the loss; `None` where it may not, which is tested.
    pub not_monotone: Option<&'static str>,
}

/// Every objective there is.
pub static OBJECTIVES: &[&Entry] = &[&sft::ENTRY, &diffusion_dpo::ENTRY, &mapo::ENTRY, &ddim_inpo::ENTRY];

/// Builds the named objective; `null` settings give its defaults.
///
/// # Errors
/// [`SettingsError`]: an unknown name or key with its nearest match, or a value that cannot be.
pub fn objective(name: &str, settings: &Value) -> Result<Box<dyn Objective>, SettingsError> {
    match OBJECTIVES.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.build)(settings),
        None => {
            let known: Vec<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
            let nearest = nearest(name, known.iter().copied());
            Err(SettingsError::UnknownObjective { name: name.into(), nearest, known })
        }
    }
}
