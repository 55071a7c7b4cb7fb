//! SD3 and SD3.5 against diffusers and transformers on tiny random networks (`golden/sd3`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bench;
mod encoders;
mod files;
mod pipeline;
#[path = "../stored/mod.rs"]
mod stored;
mod tokenizer;
mod transformer;
