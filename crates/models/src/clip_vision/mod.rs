//! `CLIPVisionModelWithProjection` of transformers: the image tower of CLIP.

mod config;
mod keys;
mod model;

pub use config::ClipVisionConfig;
pub use keys::modern_name;
pub use model::{ClipVision, ClipVisionOutput};
