//! The tokenizers of CLIP, T5 and Qwen, read from a diffusers `tokenizer/` folder.

mod bpe;
mod files;
mod folder;
mod model;
mod qwen;
mod t5;
mod tokens;
mod whole;

pub use folder::TokenizerFiles;
pub use model::ClipTokenizer;
pub use qwen::QwenTokenizer;
pub use t5::T5Tokenizer;
