//! The list of objectives, walked by help texts, reference docs and conformance tests.

use super::entry::Entry;
use super::objective::Objective;
use super::settings::SettingsError;
use crate::nearest::nearest;
use serde_json::Value;

/// Every objective there is.
pub static OBJECTIVES: &[&Entry] = &[
    &super::sft::ENTRY,
    &super::diffusion_dpo::ENTRY,
    &super::mapo::ENTRY,
    &super::ddim_inpo::ENTRY,
    &super::ipo::ENTRY,
    &super::hinge::ENTRY,
    &super::cdpo::ENTRY,
    &super::dmpo::ENTRY,
    &super::smpo::ENTRY,
    &super::kto::ENTRY,
    &super::poly_dpo::ENTRY,
    &super::linear_dpo::ENTRY,
];

/// Builds the named objective, see [`Objective::new`].
///
/// # Errors
/// [`SettingsError`]: an unknown name or key with its nearest match, or a value that cannot be.
pub fn objective(name: &str, settings: &Value) -> Result<Objective, SettingsError> {
    match OBJECTIVES.iter().find(|entry| entry.name == name) {
        Some(entry) => Objective::new(entry, settings),
        None => {
            let known: Vec<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
            let nearest = nearest(name, known.iter().copied());
            Err(SettingsError::UnknownObjective { name: name.into(), nearest, known })
        }
    }
}
