//! Training: one optimisation step, the loop around it, optimisers, the reference, and what pre-training needs.

pub mod batch;
mod error;
pub mod fit;
pub mod optimizer;
pub mod pretrain;
pub mod probe;
pub mod reference;
pub mod step;

pub use error::TrainError;
