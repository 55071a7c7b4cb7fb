//! One object, read in parts.

use std::path::{Path as Place, PathBuf};
use std::sync::Arc;

use object_store::path::Path;

use super::blocks::BLOCK;
use super::objects::{Objects, Version};
use tastemaker_store::StoreError;
use tastemaker_store::tree::Blob;

/// A file elsewhere.
#[derive(Debug)]
pub(super) struct Object {
    objects: Arc<Objects>,
    path: Path,
    place: PathBuf,
    version: Version,
}

impl Object {
    pub fn new(objects: Arc<Objects>, path: Path, version: Version) -> Self {
        let place = objects.place(path.as_ref());
        Self { objects, path, place, version }
    }
}

impl Blob for Object {
    fn place(&self) -> &Place {
        &self.place
    }

    fn size(&self) -> u64 {
        self.version.size
    }

    fn read_at(&self, start: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let end =
            start.checked_add(length as u64).filter(|end| *end <= self.version.size).ok_or_else(|| {
                let found = format!("{} bytes", self.version.size);
                StoreError::malformed(&self.place, found, format!("{length} more at {start}"))
            })?;
        let mut bytes = Vec::with_capacity(length);
        let mut at = start;
        while at < end {
            let number = at / BLOCK;
            let block = self.objects.block(&self.path, self.version, number)?;
            let from = (at - number * BLOCK) as usize;
            let to = block.len().min((end - number * BLOCK) as usize);
            bytes.extend_from_slice(&block[from..to]);
            at = number * BLOCK + to as u64;
        }
        Ok(bytes)
    }
}
