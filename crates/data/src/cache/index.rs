//! The list of a cache's shards, written when all are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tastemaker_store::checksum::sha256_file;
use tastemaker_store::sealed::{self, Sealed};
use tastemaker_store::{StoreError, in_full};

use super::folder::{ShardKind, file_name, shard_of};
use super::outline::Outline;
use super::shard::ShardFile;
use crate::DataError;

pub(super) const INDEX: &str = "index.json";
/// Version that this code writes; 1 and 2 have no checksum of their own, and none of shards' headers and tables; 3 has no outlines.
const FORMAT: u32 = 4;

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
    /// What the shard says of its pairs; absent in earlier versions, and for captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Outline>,
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
        Self::with(path, bytes, sha256_file(path)?)
    }

    /// A shard whose length and digest are known: its header and tables are read, and nothing else.
    pub fn with(path: &Path, bytes: u64, sha256: String) -> Result<Self, DataError> {
        let shard = ShardFile::open(path)?;
        let file = file_name(path);
        let holds_pairs = shard_of(&file).is_some_and(|(kind, _)| kind == ShardKind::Pairs);
        let pairs = holds_pairs.then(|| Outline::of(&shard)).transpose()?;
        Ok(Self { file, bytes, sha256, head: shard.head().to_owned(), pairs })
    }
}

impl Index {
    /// The index of a folder, if it has one; shards of earlier versions have no `head` in it.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] for one that is not what was written, or of a later version.
    pub fn read(folder: &Path) -> Result<Option<Self>, DataError> {
        Self::read_from(&folder.join(INDEX))
    }

    fn read_from(path: &Path) -> Result<Option<Self>, DataError> {
        if !path.is_file() {
            return Ok(None);
        }
        let damaged = |what: String| DataError::DamagedCache { path: path.to_owned(), what };
        let Sealed { value, is_sealed } = sealed::read(path).map_err(|error| damaged(in_full(&error)))?;
        let index: Self = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        match (index.format, is_sealed) {
            (1 | 2, false) | (3 | FORMAT, true) => Ok(Some(index)),
            (3 | FORMAT, false) => Err(damaged("it has no checksum".to_owned())),
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
        self.format >= 3
    }

    /// Whether it says of every shard what pairs are in it.
    pub fn has_outlines(&self) -> bool {
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

/// Writes down what a shard is, beside it, so that nobody who completes the cache has to read it for that.
///
/// # Errors
/// [`StoreError`].
pub(super) fn note(shard: &Path, listed: &Listed) -> Result<(), StoreError> {
    sealed::write(note_of(shard), &Index::of(vec![listed.clone()]))
}

/// What was written down of a shard, as long as nobody has touched the shard since.
pub(super) fn noted(shard: &Path) -> Option<Listed> {
    let path = note_of(shard);
    let touched =
        |path: &Path| Some((fs::metadata(path).ok()?.len(), fs::metadata(path).ok()?.modified().ok()?));
    let ((bytes, of_shard), (_, of_note)) = (touched(shard)?, touched(&path)?);
    let [listed] = <[Listed; 1]>::try_from(Index::read_from(&path).ok()??.shards).ok()?;
    let holds = of_shard < of_note && listed.bytes == bytes && listed.file == file_name(shard);
    let head = || ShardFile::open(shard).is_ok_and(|shard| shard.head() == listed.head);
    (holds && head()).then_some(listed)
}

/// Where it is written down.
pub(super) fn note_of(shard: &Path) -> PathBuf {
    shard.with_extension("json")
}
