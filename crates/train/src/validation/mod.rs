//! Validation during training: errors on held-out pairs, accuracy, and images of fixed prompts.

pub mod accuracy;
mod held_out;
pub(crate) mod images;

pub use held_out::{DrawSettings, HeldOutErrors, Measurement, Measurements, TimestepSpread, measure};
