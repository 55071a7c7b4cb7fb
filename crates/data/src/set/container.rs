//! What holds images: many files, or files that hold many.

use std::fmt::Debug;
use std::io::{BufReader, Cursor};
use std::path::PathBuf;
use std::sync::Arc;

use tastemaker_store::StoreError;
use tastemaker_store::tree::{Blob, BlobReader, LocalFile, Tree, read_whole};

use super::{HEAD, ImagePrompt, MAX_IMAGE_BYTES, Strings, prompt_of};
use crate::DataError;

/// Holds images as files do: encoded.
pub trait Container: Send + Sync + Debug {
    /// The encoded image. Any number of threads may ask at once.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be read, or is longer than [`MAX_IMAGE_BYTES`].
    fn read(&self, item: u32) -> Result<Vec<u8>, DataError>;

    /// The first bytes of an image, where they are quickly read; else `None`.
    fn head(&self, _item: u32) -> Option<Vec<u8>> {
        None
    }

    /// Where an image is, for people.
    fn place(&self, item: u32) -> PathBuf;

    /// What identifies an image short of its contents, for the fingerprint of a set: a name that moving the set does not
    /// change, and a size.
    fn identity(&self, item: u32) -> (String, u64);

    /// The prompt that an image says it was generated from.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn prompt(&self, item: u32) -> Result<Option<ImagePrompt>, DataError> {
        Ok(prompt_of(Cursor::new(self.read(item)?)))
    }
}

/// Images that are files of a tree.
#[derive(Debug)]
pub struct Files {
    tree: Arc<dyn Tree>,
    paths: Strings,
    sizes: Vec<u64>,
}

impl Files {
    /// None yet.
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self { tree, paths: Strings::default(), sizes: Vec::new() }
    }

    /// Adds a file and returns its number, `None` if there is no such file.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be known.
    pub fn find(&mut self, path: &str) -> Result<Option<u32>, StoreError> {
        Ok(self.tree.size(path)?.map(|size| self.add(path, size)))
    }

    /// Adds a file that is known to be there.
    pub fn add(&mut self, path: &str, size: u64) -> u32 {
        self.sizes.push(size);
        self.paths.push(path)
    }
}

impl Container for Files {
    fn read(&self, item: u32) -> Result<Vec<u8>, DataError> {
        let blob = self.tree.open(self.paths.get(item as usize))?;
        Ok(read_whole(blob.as_ref(), MAX_IMAGE_BYTES)?)
    }

    fn head(&self, item: u32) -> Option<Vec<u8>> {
        // Of a file on this machine alone: its place is that of no other.
        LocalFile::open(self.place(item)).ok()?.read_at(0, HEAD).ok()
    }

    fn place(&self, item: u32) -> PathBuf {
        self.tree.place(self.paths.get(item as usize))
    }

    fn identity(&self, item: u32) -> (String, u64) {
        (self.paths.get(item as usize).to_owned(), self.sizes[item as usize])
    }

    fn prompt(&self, item: u32) -> Result<Option<ImagePrompt>, DataError> {
        let blob = self.tree.open(self.paths.get(item as usize))?;
        Ok(prompt_of(BufReader::with_capacity(64 << 10, BlobReader::new(blob.as_ref()))))
    }
}
