//! Judging: scorers, win rates with intervals, and the report that shows both with images.

pub mod compare;
pub mod error;
pub mod pairing;
pub mod report;
pub mod scorers;
pub mod winrate;

pub use error::EvalError;
