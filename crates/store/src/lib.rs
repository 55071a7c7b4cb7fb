//! Files on disk: written atomically, checked when read.
//!
//! * [`atomic`] writes a file so that a reader sees the old bytes or the new ones, never half of either.
//! * [`checksum`] names bytes by their SHA-256.
//! * [`foreign`] says what a file is that is not what its name promises.
//! * [`json`] reads and writes JSON with the path in every error; [`sealed`] adds a checksum.
//! * [`lock`] keeps other processes out of a folder.
//! * [`regular`] opens files, and nothing that only looks like one.
//! * [`tree`] reads files below a place in parts, wherever that place is; here is the folder on this machine.

pub mod atomic;
pub mod checksum;
pub mod dtype;
mod error;
pub mod foreign;
pub mod json;
pub mod lock;
pub mod regular;
pub mod sealed;
pub mod tree;

pub use error::{StoreError, causes, in_full};
