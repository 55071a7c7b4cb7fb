//! Models, in and out: diffusers folders, with `model_index.json` and one folder per component, and single files in the same
//! terms.

mod component;
mod fingerprint;
mod fit;
mod index;
mod model;
mod open;
mod part;
mod save;
mod scheduler;
mod single_file;
mod text;

pub(crate) use component::{Build, build, in_few_bits, missing};
pub use component::{Loaded, Stored};
pub(crate) use fingerprint::Fingerprint;
pub use index::{Family, ModelIndex};
pub use model::Model;
pub use open::ModelSources;
pub use save::{Trained, save, write_backbone, write_component};
pub use scheduler::SchedulerConfig;
pub use single_file::{SingleFile, pack};
pub use text::{CutCaptions, QWEN_LENGTH, T5_LENGTH, TextAdapters, TextEncoders, Tokens};

/// Stem of the weights files of UNets, transformers and VAEs.
pub const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// Stem of the weights files of text encoders.
pub const TRANSFORMERS_STEM: &str = "model";
