//! `CLIPModel` of transformers: both towers and the scale between them, from a transformers folder or from weights under
//! OpenCLIP's names.

mod config;
mod files;
mod keys;
mod model;

pub use config::ClipConfig;
pub use files::ClipFiles;
pub use keys::{modern_name, open_clip as open_clip_place};
pub use model::Clip;
