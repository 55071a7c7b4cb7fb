//! Preference methods: from the errors of a pair to its loss, one file per method.
//!
//! A method sees errors, schedule values and its own settings; never an image, a prompt or a device. It is written
//! on [`crate::Dual`] numbers and so differentiates itself. [`OBJECTIVES`] lists them all; a new method is one file
//! here, one line there, a golden and a page under `docs/methods`. What any method can be given besides is in `terms`.

mod accuracy;
mod auto_beta;
mod beta;
mod cdpo;
mod corruption;
mod ddim_inpo;
mod diffusion_dpo;
mod dmpo;
mod entry;
mod hinge;
mod inputs;
mod ipo;
mod kto;
mod linear_dpo;
mod mapo;
mod method;
mod objective;
mod poly_dpo;
mod registry;
mod relative;
mod settings;
mod sft;
mod smpo;
mod terms;

pub use accuracy::{TieRule, implicit_accuracy};
pub use auto_beta::{AutoBeta, logit_of};
pub use beta::BetaConvention;
pub use corruption::{Corruption, Grid, InversionModel};
pub use entry::{Entry, Published, Shorthand};
pub use inputs::{ImageInputs, Label, MeanGain, Needs, NoiseLevel, PairInputs};
pub use objective::{Objective, Outcome};
pub use registry::{OBJECTIVES, objective};
pub use settings::SettingsError;
pub use terms::KEYS as COMMON_SETTINGS;
