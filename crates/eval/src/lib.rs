//! Judging: scorers, win rates with intervals, and comparisons that show both with images.

pub mod compare;
pub mod error;
pub mod pairing;
pub mod scorers;
pub mod winrate;

pub use error::EvalError;
