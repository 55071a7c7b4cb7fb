//! The test kit with tensors: all of `tastemaker-testkit`, recorded tensors, and comparing them.

mod close;
mod golden;

pub use close::{assert_close, assert_gradients, relative_error};
pub use golden::{Golden, redrawn, weights};
pub use tastemaker_testkit::*;
