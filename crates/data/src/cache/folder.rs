//! The folder of a cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::{StoreError, atomic, json};

use super::Key;
use crate::DataError;

const KEY: &str = "key.json";
const INDEX: &str = "index.json";
/// Digits of a shard's SHA-256 that its name ends with.
const DIGITS: usize = 16;

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShardKind {
    /// Posteriors of pairs.
    Pairs,
    /// Embeddings of captions.
    Text,
}

impl ShardKind {
    fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Text => "text",
        }
    }
}

/// A shard in the index.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    file: String,
    bytes: u64,
    sha256: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    shards: Vec<Listed>,
}

/// A cache on disk, whole or in the making.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    shards: BTreeMap<(ShardKind, usize), PathBuf>,
    is_whole: bool,
}

impl CacheFolder {
    /// Opens the cache of a key, or begins it.
    ///
    /// # Errors
    /// [`DataError::StaleCache`] if the folder holds the cache of another key, with what differs; [`StoreError`] if it cannot
    /// be read or made, or holds something else; [`DataError::DamagedCache`] if it was whole and a shard is missing or of
    /// another length.
    pub fn open(path: impl AsRef<Path>, key: &Key) -> Result<Self, DataError> {
        let path = path.as_ref();
        atomic::create_folder(path)?;
        let key_file = path.join(KEY);
        if key_file.is_file() {
            let there = Key::parse(json::read(&key_file)?)
                .map_err(|source| StoreError::Json { path: key_file, source })?;
            let differences = Key::differences(&there, key);
            if !differences.is_empty() {
                return Err(DataError::StaleCache { path: path.to_owned(), differences });
            }
        } else {
            let entries = fs::read_dir(path).map_err(|e| StoreError::io("read", path, e))?;
            let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            // Another process that makes other shards may be writing the key at this moment.
            if let Some(foreign) = names.find(|name| name != KEY && !name.starts_with(".tmp")) {
                let wanted = "an empty folder, or a cache with its key.json";
                return Err(StoreError::malformed(path, format!("`{foreign}`"), wanted).into());
            }
            atomic::write_bytes(&key_file, key.json().as_bytes())?;
        }
        let shards = list(path)?;
        let mut folder = Self { path: path.to_owned(), shards, is_whole: false };
        if let Some(index) = folder.index()? {
            folder.check_lengths(&index)?;
            folder.is_whole = true;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every shard is there.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The file of a shard that is there.
    pub fn shard(&self, kind: ShardKind, number: usize) -> Option<&Path> {
        self.shards.get(&(kind, number)).map(PathBuf::as_path)
    }

    /// The file of a shard of a whole cache.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not there.
    pub fn require(&self, kind: ShardKind, number: usize) -> Result<&Path, DataError> {
        self.shard(kind, number).ok_or_else(|| DataError::DamagedCache {
            path: self.path.clone(),
            what: format!("shard {number} of {}, which is missing", kind.name()),
        })
    }

    /// Whether a shard is there and its bytes are those it is named after. One that is not is removed.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read or removed.
    pub fn keeps(&mut self, kind: ShardKind, number: usize) -> Result<bool, DataError> {
        let Some(path) = self.shards.get(&(kind, number)) else { return Ok(false) };
        if named_after(path, &sha256_file(path)?) {
            return Ok(true);
        }
        fs::remove_file(path).map_err(|e| StoreError::io("remove", path, e))?;
        self.shards.remove(&(kind, number));
        Ok(false)
    }

    /// Writes a shard, atomically.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn add(&mut self, kind: ShardKind, number: usize, bytes: &[u8]) -> Result<(), DataError> {
        let digits = &sha256_bytes(bytes)[..DIGITS];
        let path = self.path.join(format!("{}-{number:05}-{digits}.safetensors", kind.name()));
        atomic::write_bytes(&path, bytes)?;
        self.shards.insert((kind, number), path);
        Ok(())
    }

    /// Writes the index if so many shards are there, those of other processes too, and says whether it did. What interrupted
    /// builds left behind is removed if this process is `alone`; else it might be what another one is writing.
    ///
    /// # Errors
    /// [`StoreError`] if shards cannot be read or the index not be written.
    pub fn finish(&mut self, n_pairs: usize, n_text: usize, alone: bool) -> Result<bool, DataError> {
        self.shards = list(&self.path)?;
        let numbers =
            (0..n_pairs).map(|i| (ShardKind::Pairs, i)).chain((0..n_text).map(|i| (ShardKind::Text, i)));
        if !numbers.clone().all(|key| self.shards.contains_key(&key)) {
            return Ok(false);
        }
        let mut shards = Vec::with_capacity(n_pairs + n_text);
        for key in numbers {
            let path = &self.shards[&key];
            let bytes = fs::metadata(path).map_err(|e| StoreError::io("read", path, e))?.len();
            shards.push(Listed { file: file_name(path), bytes, sha256: sha256_file(path)? });
        }
        let index = Index { format: Key::FORMAT, shards };
        let text = serde_json::to_value(&index).unwrap_or_default();
        atomic::write_bytes(self.path.join(INDEX), format!("{text:#}\n").as_bytes())?;
        self.is_whole = true;
        if alone {
            self.sweep();
        }
        Ok(true)
    }

    /// Compares every shard of a whole cache with the index; `on_shard` is called after each with the bytes so far and in all.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] naming the first shard that is not what was written.
    pub fn verify(&self, mut on_shard: impl FnMut(u64, u64)) -> Result<(), DataError> {
        let Some(index) = self.index()? else {
            return Err(DataError::DamagedCache {
                path: self.path.clone(),
                what: format!("{INDEX}, which is missing"),
            });
        };
        let all: u64 = index.shards.iter().map(|shard| shard.bytes).sum();
        let mut done = 0;
        for Listed { file, bytes, sha256 } in &index.shards {
            if sha256_file(self.path.join(file))? != *sha256 {
                let what = format!("its bytes, which have another SHA-256 than {INDEX} says");
                return Err(DataError::DamagedCache { path: self.path.join(file), what });
            }
            done += bytes;
            on_shard(done, all);
        }
        Ok(())
    }

    /// Bytes of all shards together.
    pub fn bytes(&self) -> u64 {
        self.shards.values().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    fn index(&self) -> Result<Option<Index>, DataError> {
        let path = self.path.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        let index: Index = serde_json::from_value(json::read(&path)?)
            .map_err(|source| StoreError::Json { path: path.clone(), source })?;
        // Names lead nowhere else.
        if let Some(shard) =
            index.shards.iter().find(|shard| shard.file.contains(['/', '\\']) || shard.file == "..")
        {
            return Err(StoreError::malformed(
                &path,
                format!("`{}`", shard.file),
                "names of files beside it",
            )
            .into());
        }
        Ok(Some(index))
    }

    fn check_lengths(&self, index: &Index) -> Result<(), DataError> {
        for Listed { file, bytes, .. } in &index.shards {
            let path = self.path.join(file);
            let found = fs::metadata(&path).map(|file| file.len());
            if found.as_ref().ok() != Some(bytes) {
                let found = found.map_or("not there".to_owned(), |found| format!("{found} bytes long"));
                let what = format!("its length: it is {found}, not {bytes} bytes long");
                return Err(DataError::DamagedCache { path, what });
            }
        }
        Ok(())
    }

    /// Removes temporary files. What cannot be removed does no harm.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn named_after(path: &Path, sha256: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(&format!("-{}", &sha256[..DIGITS])))
}

/// The shards in a folder by kind and number.
fn list(folder: &Path) -> Result<BTreeMap<(ShardKind, usize), PathBuf>, DataError> {
    let fail = |e| StoreError::io("read", folder, e);
    let mut shards = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = file_name(&path);
        let Some(stem) = name.strip_suffix(".safetensors") else { continue };
        let mut parts = stem.split('-');
        let (kind, number) = (parts.next(), parts.next().and_then(|number| number.parse().ok()));
        let kind = [ShardKind::Pairs, ShardKind::Text].into_iter().find(|known| Some(known.name()) == kind);
        if let (Some(kind), Some(number)) = (kind, number) {
            shards.insert((kind, number), path);
        }
    }
    Ok(shards)
}
