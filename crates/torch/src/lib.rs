//! libtorch as this project uses it: device, precision, memory use, and tensors from and to safetensors.
//!
//! This is not an abstraction over `tch`: networks and the training step use [`tch::Tensor`] directly. The crate holds
//! what `tch` lacks and nothing else.

pub mod devices;
pub mod distributed;
pub mod driver;
pub mod error;
pub mod faults;
pub mod kernels;
mod library;
pub mod mapped;
pub mod memory;
pub mod nccl;
pub mod norm;
pub mod optimizers;
mod precision;
pub mod products;
pub mod quantized;
pub mod recompute;
mod shim;
pub mod streams;
pub mod tensors;
pub mod versions;

pub use error::TorchError;
pub use precision::kind_of;
