//! The tokenizers of CLIP and T5, read from a diffusers `tokenizer/` folder.

mod bpe;
mod files;
mod folder;
mod model;
mod t5;
mod tokens;

pub use folder::TokenizerFiles;
pub use model::ClipTokenizer;
pub use t5::T5Tokenizer;
