//! The embedded default: real art, a small model in diffusers layout, and the run that shows every method on them.

mod art;
pub mod base;
pub mod captions;
mod images;
pub mod judge;
mod methods;
mod pairs;
pub mod pretrain;
pub mod prompts;
mod run;
pub mod stage;
mod summary;
mod task;

pub use run::{DemoArgs, demo};
