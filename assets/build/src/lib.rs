//! Remakes the art, captions, safety list and tokenizer under `assets/demo` from pinned npm packages.
//!
//! Nothing else links this package: the default run reads the committed files.

#![forbid(unsafe_code)]

pub mod art;
pub mod bpe;
pub mod captions;
pub mod hash;
pub mod manifest;
pub mod safety;
pub mod sources;
