//! The CLIP tokenizer, read from a diffusers `tokenizer/` folder.

mod bpe;
mod files;
mod model;
mod tokens;

pub use model::ClipTokenizer;
