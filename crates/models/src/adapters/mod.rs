//! Adapter files: low-rank updates of a network, apart from the network.

mod file;
mod keys;
mod kohya;

pub use file::{FILE_NAME, LoraFile};
pub use kohya::{KOHYA_FILE_NAME, KohyaFacts};
