//! Files below a place, wherever that is: read in parts, never written.
//!
//! Readers of data sets are written against [`Tree`] and [`Blob`], so that a folder on this machine and a bucket elsewhere
//! are one case.

mod blob;
pub mod braces;
mod kind;
mod local;
mod location;

pub use blob::{Blob, BlobReader, Faults, read_text, read_whole};
pub use kind::{CAPTION_EXTENSIONS, FileKind, IMAGE_EXTENSIONS, READ_KINDS, kind_of, unread};
pub use local::{LocalFile, LocalTree};
pub use location::Location;

use std::path::PathBuf;

use crate::StoreError;

/// A file of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its path below the tree, parts joined by `/`.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Whether a file is none of a set: its name or that of a folder above it is hidden, or is where macOS puts what it knows of files
/// in archives.
pub fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| (part.starts_with('.') && ![".", ".."].contains(&part)) || part == "__MACOSX")
}

/// A place that holds files.
pub trait Tree: Send + Sync + std::fmt::Debug {
    /// The place of a file below, for errors and records.
    fn place(&self, path: &str) -> PathBuf;

    /// All files below that are not [hidden](is_hidden), sorted by path.
    ///
    /// # Errors
    /// [`StoreError`] if the place cannot be listed, or not without end.
    fn entries(&self) -> Result<Vec<Entry>, StoreError>;

    /// Size in bytes of the file of this path, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be known.
    fn size(&self, path: &str) -> Result<Option<u64>, StoreError>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, StoreError>;
}
