//! The weights of a component of a model, whatever kind of files they are in.

mod component;
mod file;

pub use component::{Weights, has_variant, open_component, open_component_with};
pub use file::WeightFile;
