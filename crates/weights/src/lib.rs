//! Weight files: named byte views of tensors, whatever format they are in.
//!
//! * [`safetensors`] reads and writes safetensors, deterministically.
//! * [`pickle`] reads PyTorch's legacy weight files without running anything.
//! * [`open_component`] opens the weights of a model's component, whichever of the two they are, in one file or in shards.
//!
//! Every file may come from a stranger, so each reader checks before it trusts.

mod component;
mod file;
mod finite;
pub mod pickle;
pub mod safetensors;

pub use component::{Weights, has_variant, open_component, open_component_with};
pub use file::WeightFile;
pub use finite::check_finite;
