//! Gradients and parameters that ranks on CUDA devices exchange, by NCCL.
//!
//! NCCL is in every process that has opened libtorch's part for CUDA. Its functions are found there by name: programs link nothing
//! of it and need none of its headers. See `docs/decisions/0016-nccl.md`.

mod abi;
mod buckets;
mod communicator;
mod gradients;
mod worker;

pub use abi::Library;
pub use buckets::owners;
pub use gradients::{Gradients, Leaves};
