//! `ZImageTransformer2DModel` of diffusers: Z-Image, a transformer over image patches and the caption in one stream.
//!
//! Source: arXiv 2511.22699; `huggingface/diffusers:src/diffusers/models/transformers/transformer_z_image.py`.

mod blocks;
mod config;
mod footprint;
mod keys;
mod model;
mod rope;

pub use config::ZImageConfig;
pub(crate) use keys::{BLOCKS, MARK, SPLIT, UNREAD, is_original, original as original_place};
pub use model::ZImage;
