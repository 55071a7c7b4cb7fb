//! The CLIP tokenizer, read from a diffusers `tokenizer/` folder.

mod bpe;
mod files;
mod folder;
mod model;
mod tokens;

pub use folder::TokenizerFiles;
pub use model::ClipTokenizer;
