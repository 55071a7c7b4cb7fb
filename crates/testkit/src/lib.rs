//! What tests of several crates share: recorded goldens, comparing tensors, and files damaged on purpose.
//!
//! Everything here panics with a full sentence instead of returning an error: its only callers are tests.

mod close;
mod golden;
pub mod malformed;
mod mutations;
mod tiny;
mod tokenizer;

pub use close::{assert_close, assert_gradients, relative_error};
pub use golden::{Golden, golden_dir};
pub use mutations::{mutated_json, mutated_safetensors};
pub use tiny::{TINY_RESOLUTION, tiny_model, tiny_sdxl_model};
pub use tokenizer::{tokenizer_dir, tokenizer_prompts};
