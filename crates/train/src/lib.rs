//! Training: a whole run, one optimization step, the loop between them, optimizers, the reference, and what pre-training
//! needs.

pub mod accuracy;
mod average;
pub mod bank;
mod banking;
pub mod batch;
pub mod caching;
mod card;
pub mod checkpoint;
mod error;
pub mod estimate;
mod figures;
pub mod fit;
mod images;
mod keeper;
mod networks;
pub mod optimizer;
pub mod pairs;
pub mod prepare;
pub mod pretrain;
pub mod probe;
pub mod processes;
mod recorder;
pub mod reference;
mod result;
mod said;
mod scaling;
pub mod session;
mod setup;
pub mod start;
pub mod state;
pub mod step;
mod text;

pub use error::TrainError;
pub use result::result_paths;
