//! Adapter files: low-rank updates of a network, apart from the network.

mod file;
mod keys;

pub use file::{FILE_NAME, LoraFile};
