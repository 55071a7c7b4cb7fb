//! Z-Image against diffusers and transformers on tiny random networks (`golden/zimage`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bench;
mod files;
mod pipeline;
mod qwen3;
#[path = "../stored/mod.rs"]
mod stored;
mod tokenizer;
mod transformer;
