//! `SD3Transformer2DModel` of diffusers: SD3 and SD3.5, a transformer over image patches and text in one sequence.
//!
//! Source: arXiv 2403.03206; `huggingface/diffusers:src/diffusers/models/transformers/transformer_sd3.py`.

mod attention;
mod blocks;
mod config;
mod footprint;
mod keys;
mod model;
mod positions;

pub use config::MmditConfig;
pub use keys::original as original_place;
pub(crate) use keys::{config_of, is_original};
pub use model::Mmdit;
