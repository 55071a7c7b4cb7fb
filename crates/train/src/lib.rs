//! Training: a whole run, one optimization step, the loop between them, optimizers, the reference, and what pre-training
//! needs.

pub mod adapter;
pub mod checkpoint;
mod conditioning;
pub mod data;
pub mod distributed;
pub mod draws;
mod error;
pub mod estimate;
mod fitting;
mod logger;
mod metrics;
mod networks;
pub mod optimizer;
mod output;
pub mod reference;
pub mod session;
mod setup;
pub mod state;
pub mod step;
pub mod train_loop;
pub mod validation;

pub use error::TrainError;
pub use output::result_paths;
