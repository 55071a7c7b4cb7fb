//! What tests of several crates share and what needs no tensors: recorded cases, a model small enough to train, files damaged
//! on purpose, a web server on this machine, libraries that stand in for those of devices. `tastemaker-testkit-torch` adds tensors.
//!
//! Everything here panics with a full sentence instead of returning an error: its only callers are tests.

mod arrays;
mod golden;
pub mod malformed;
mod mutations;
mod redraw;
pub mod server;
pub mod standin;
mod tiny;
mod tokenizer;

pub use arrays::{Array, Arrays};
pub use golden::{Golden, golden_dir, golden_weights, redrawn};
pub use mutations::{mutated_json, mutated_safetensors};
pub use tiny::{TINY_RESOLUTION, tiny_model, tiny_sdxl_model};
pub use tokenizer::{recorded_prompts, tokenizer_prompts};
