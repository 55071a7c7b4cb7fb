//! Files on disk: written atomically, checked when read.
//!
//! * [`atomic`] writes a file so that a reader sees the old bytes or the new ones, never half of either.
//! * [`checksum`] names bytes by their SHA-256.
//! * [`foreign`] says what a file is that is not what its name promises.
//! * [`json`] reads and writes JSON with the path in every error; [`sealed`] adds a checksum.
//! * [`lock`] keeps other processes out of a folder.
//! * [`regular`] opens files, and nothing that only looks like one.
//! * [`version`] says which version of the program writes.
//! * [`tree`] reads files below a place in parts, wherever that place is; here is the folder on this machine.

use std::sync::OnceLock;

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

/// The version of the program, as every file that it writes has it: of a package with the commit that it was made from, as
/// `0.1.0+5b96d9e5`.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let release = env!("CARGO_PKG_VERSION");
        option_env!("TASTEMAKER_COMMIT").map_or(release.to_owned(), |commit| format!("{release}+{commit}"))
    })
}
