//! The list of a cache's shards, written when all are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tastemaker_store::checksum::sha256_file;
use tastemaker_store::sealed::{self, Sealed};
use tastemaker_store::{StoreError, in_full};

use super::folder::{ShardKind, file_name, shard_of};
use super::shard::ShardFile;
use crate::DataError;

pub(super) const INDEX: &str = "index.json";
/// Version that this code writes; 1 and 2 have no checksum of their own, and none of shards' headers and tables.
const FORMAT: u32 = 3;

/// A shard in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
    /// SHA-256 over the shard's header and tables, which every opening compares; absent in earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub head: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    format: u32,
    pub shards: Vec<Listed>,
}

impl Listed {
    /// A shard as it is on disk.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        let bytes = fs::metadata(path).map_err(|e| StoreError::io("read", path, e))?.len();
        let head = ShardFile::open(path)?.head().to_owned();
        Ok(Self { file: file_name(path), bytes, sha256: sha256_file(path)?, head })
    }
}

impl Index {
    /// The index of a folder, if it has one; shards of earlier versions have no `head` in it.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] for one that is not what was written, or of a later version.
    pub fn read(folder: &Path) -> Result<Option<Self>, DataError> {
        let path = folder.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        let damaged = |what: String| DataError::DamagedCache { path: path.clone(), what };
        let Sealed { value, is_sealed } = sealed::read(&path).map_err(|error| damaged(in_full(&error)))?;
        let index: Self = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        match (index.format, is_sealed) {
            (1 | 2, false) | (FORMAT, true) => Ok(Some(index)),
            (FORMAT, false) => Err(damaged("it has no checksum".to_owned())),
            (other, _) => Err(damaged(format!("it has format {other}; this version reads 1 to {FORMAT}"))),
        }
    }

    /// The list of these shards.
    pub fn of(shards: Vec<Listed>) -> Self {
        Self { format: FORMAT, shards }
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(&self, folder: &Path) -> Result<(), StoreError> {
        sealed::write(folder.join(INDEX), self)
    }

    /// Whether it has checksums of shards' headers and tables.
    pub fn covers_heads(&self) -> bool {
        self.format >= FORMAT
    }

    /// Its shards by kind and number.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] for names that are not those of shards, or one that is there twice.
    pub fn by_number(&self, folder: &Path) -> Result<BTreeMap<(ShardKind, usize), Listed>, DataError> {
        let mut shards = BTreeMap::new();
        for listed in &self.shards {
            let file = &listed.file;
            // Names lead nowhere else: that of a shard has no separators.
            let key = shard_of(file).filter(|_| !file.contains(['/', '\\']));
            let is_new = key.is_some_and(|key| shards.insert(key, listed.clone()).is_none());
            if !is_new {
                let what = format!("it lists `{file}`, which is no shard or there twice");
                return Err(DataError::DamagedCache { path: folder.join(INDEX), what });
            }
        }
        Ok(shards)
    }
}
