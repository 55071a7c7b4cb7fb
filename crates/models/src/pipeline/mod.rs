//! Models, in and out: diffusers folders, with `model_index.json` and one folder per component, and single files in the same
//! terms.

mod component;
mod fingerprint;
mod fit;
mod index;
mod load;
mod open;
mod part;
mod save;
mod scheduler;
mod text;

pub use component::Stored;
pub(crate) use component::{Build, build, missing};
pub(crate) use fingerprint::{hash_part, hash_stored};
pub use index::{Family, ModelIndex};
pub use load::{Loaded, Model};
pub use open::ModelSources;
pub use save::{StoredType, Trained, save, write_component, write_unet};
pub use scheduler::SchedulerConfig;
pub use text::{TextAdapters, TextEncoders, Tokens};

/// Stem of the weights files of UNets and VAEs.
pub const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// Stem of the weights files of text encoders.
pub const TRANSFORMERS_STEM: &str = "model";
