//! `T5EncoderModel` of transformers, version 1.1: SD3's third text encoder.

mod config;
mod keys;
mod model;

pub use config::T5Config;
pub use keys::{EMBEDDINGS, TWIN, modern_name};
pub use model::T5Encoder;
