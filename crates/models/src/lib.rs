//! Networks: one folder each, built from a diffusers `config.json` and a checkpoint's tensors.

pub mod adapters;
pub mod backbone;
pub mod blip;
pub mod clip;
pub mod clip_text;
pub mod clip_vision;
pub mod config;
pub mod error;
pub mod mmdit;
mod names;
pub mod nn;
pub mod original;
pub mod pipeline;
pub mod place;
mod quantized;
pub mod qwen3;
pub mod reward_head;
pub mod t5;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod verify;
pub mod zimage;

pub use error::ModelError;
