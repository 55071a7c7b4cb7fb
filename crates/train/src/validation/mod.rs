//! What is measured during training: errors on held-out pairs, accuracy, and images of fixed prompts.

pub mod accuracy;
mod held_out;
pub(crate) mod images;

pub use held_out::{Look, ProbeSet, Spread, looks, probe};
