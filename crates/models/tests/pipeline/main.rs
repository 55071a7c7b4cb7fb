//! Model folders in and out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod faults;
mod few_bits;
mod folders;
mod load;
mod save;
