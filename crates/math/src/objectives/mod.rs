//! Preference methods: from the errors of a pair to its loss, one file per method.
//!
//! An objective sees errors, schedule values and its own settings; never an image, a prompt or a device. It is written
//! on [`crate::Dual`] numbers and so differentiates itself. [`OBJECTIVES`] lists them all; a new method is one file
//! here, one line there, a golden and a page under `docs/methods`.

mod accuracy;
mod contract;
mod corruption;
pub mod ddim_inpo;
pub mod diffusion_dpo;
pub mod mapo;
mod registry;
mod relative;
mod settings;
pub mod sft;

pub use accuracy::{TieRule, implicit_accuracy};
pub use contract::{Objective, Outcome, PairContext, PairErrors, evaluate};
pub use corruption::{Corruption, Grid, InversionModel};
pub use registry::{Entry, OBJECTIVES, objective};
pub use settings::SettingsError;
