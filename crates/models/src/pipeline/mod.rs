//! A diffusers model folder, in and out: `model_index.json` and one folder per component.

mod component;
mod index;
mod load;
mod save;
mod scheduler;
mod text;

pub use component::Stored;
pub use index::{Family, ModelIndex};
pub use load::{Loaded, ModelFolder};
pub use save::{StoredType, save_components, save_unet, write_component};
pub use scheduler::SchedulerConfig;
pub use text::TextEncoders;

/// Stem of the weights files of UNets and VAEs.
pub const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// Stem of the weights files of text encoders.
pub const TRANSFORMERS_STEM: &str = "model";
