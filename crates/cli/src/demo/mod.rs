//! The embedded default: real art, a small model in diffusers layout, and the run that shows every method on them.

pub mod art;
pub mod pretrain;
