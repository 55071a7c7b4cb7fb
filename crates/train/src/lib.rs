//! Training: a whole run, one optimisation step, the loop between them, optimisers, the reference, and what pre-training
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
mod keeper;
mod networks;
pub mod optimizer;
pub mod pairs;
mod pictures;
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
