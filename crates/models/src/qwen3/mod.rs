//! `Qwen3Model` of transformers: Z-Image's text encoder.

mod config;
mod keys;
mod model;

pub use config::Qwen3Config;
pub use keys::{is_after, modern_name};
pub use model::Qwen3;
