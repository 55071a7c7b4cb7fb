//! The folder of a cache.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::{StoreError, atomic, json};

use super::index::{INDEX, Index, Listed, note, note_of, noted};
use super::shard::ShardFile;
use super::{Key, PairLayout, PairShard, TextLayout, TextShard};
use crate::DataError;
use crate::transform::Size;

const KEY: &str = "key.json";
/// A file that says that all images of the cache were looked at and are none that a later decoder makes other pixels of; its
/// revision follows.
const SAME_PIXELS: &str = "same-pixels-";

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

/// A cache on disk, whole or in the making.
#[derive(Debug, Clone)]
pub struct CacheFolder {
    path: PathBuf,
    shards: BTreeMap<(ShardKind, usize), PathBuf>,
    /// What the index says of each shard, once all are there.
    listed: Option<BTreeMap<(ShardKind, usize), Listed>>,
    /// What is known of shards that this process made, or has compared with what was written down beside them.
    known: BTreeMap<(ShardKind, usize), Listed>,
    was_read_in_full: bool,
}

/// What the index says of the pairs of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairOutline {
    /// Bucket resolution of each, `None` for one that is skipped.
    pub resolutions: Vec<Option<Size>>,
    /// Positions in the shard that are skipped, and why.
    pub skipped: Vec<(usize, String)>,
}

impl CacheFolder {
    /// Opens the cache of a key, or begins it. Of a whole one no shard is opened. One of an earlier version, which has no checksums of
    /// shards' headers and tables, is read in full, and they are added.
    ///
    /// # Errors
    /// [`DataError::StaleCache`] if the folder holds the cache of another key, with what differs; [`DataError::NoCache`] if it holds
    /// something else; [`DataError::DamagedKey`] if nobody can say of what; [`StoreError`] if it cannot be read or made; [`DataError::DamagedCache`] if it was whole and a shard is missing or of
    /// another length.
    pub fn open(path: impl AsRef<Path>, key: &Key) -> Result<Self, DataError> {
        let path = path.as_ref();
        atomic::create_folder(path)?;
        let key_file = path.join(KEY);
        if key_file.is_file() {
            let there = read_key(&key_file)?;
            let differences = Key::differences(&there, key);
            if !differences.is_empty() {
                return Err(DataError::StaleCache { path: path.to_owned(), differences });
            }
        } else {
            let entries = fs::read_dir(path).map_err(|e| StoreError::io("read", path, e))?;
            let mut names = entries.flatten().map(|entry| entry.file_name());
            // Another process that makes other shards may be writing the key at this moment.
            if let Some(foreign) = names.find(|name| name != KEY && !atomic::is_unfinished(name)) {
                let found = foreign.to_string_lossy().into_owned();
                return Err(DataError::NoCache { path: path.to_owned(), found });
            }
            atomic::write_bytes(&key_file, key.json().as_bytes())?;
        }
        let Some(index) = Index::read(path)? else {
            let shards = list(path)?;
            return Ok(Self { shards, ..Self::empty(path) });
        };
        check_lengths(path, &index)?;
        let was_read_in_full = !index.covers_heads();
        let index = if index.has_outlines() { index } else { completed(path, &index)? };
        let mut folder = Self { was_read_in_full, ..Self::empty(path) };
        folder.adopt(index)?;
        Ok(folder)
    }

    fn empty(path: &Path) -> Self {
        let (shards, known) = (BTreeMap::new(), BTreeMap::new());
        Self { path: path.to_owned(), shards, listed: None, known, was_read_in_full: false }
    }

    /// Whether the whole cache of a key seems to be at a place; nothing but the key is read.
    pub fn is_whole_at(path: &Path, key: &Key) -> bool {
        let there = json::read(path.join(KEY)).ok().and_then(|value| Key::parse(value).ok());
        there.is_some_and(|there| there == *key) && path.join(INDEX).is_file()
    }

    /// Which key the cache of a set has at a place: the one of earlier versions, if such a cache is there and the images of the set,
    /// which `decodes_as_ever` looks at once, are none that were decoded otherwise then; else the key itself.
    ///
    /// # Errors
    /// [`DataError::DamagedKey`] for a key that is none.
    pub fn key_at(
        path: &Path,
        key: &Key,
        decodes_as_ever: impl FnOnce() -> bool,
    ) -> Result<Option<Key>, DataError> {
        let (file, former) = (path.join(KEY), key.without_decoder());
        let Some(decoder) = key.latents.decoder.filter(|_| file.is_file()) else { return Ok(None) };
        let there = read_key(&file)?;
        if there != former {
            return Ok(None);
        }
        let mark = path.join(format!("{SAME_PIXELS}{decoder}"));
        if !mark.exists() {
            if !decodes_as_ever() {
                return Ok(None);
            }
            // Where it cannot be written, the images are looked at again the next time.
            let _ = atomic::write_bytes(&mark, b"");
        }
        Ok(Some(former))
    }

    /// From here on the index says which shards there are.
    fn adopt(&mut self, index: Index) -> Result<(), DataError> {
        let listed = index.by_number(&self.path)?;
        self.shards = listed.iter().map(|(key, shard)| (*key, self.path.join(&shard.file))).collect();
        self.listed = Some(listed);
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every shard is there.
    pub fn is_whole(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether an earlier version had written it, and opening it read all of it to add checksums.
    pub fn was_read_in_full(&self) -> bool {
        self.was_read_in_full
    }

    /// What pairs are in a shard of a whole cache, without opening it.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not listed, or an index was crafted.
    pub fn outline(&self, number: usize) -> Result<PairOutline, DataError> {
        let outline = self.listed(ShardKind::Pairs, number)?.pairs.as_ref();
        let found = outline.and_then(|outline| {
            Some(PairOutline { resolutions: outline.pairs()?, skipped: outline.skipped.clone() })
        });
        found.ok_or_else(|| DataError::DamagedCache {
            path: self.path.join(INDEX),
            what: format!("what it says of the pairs of shard {number}"),
        })
    }

    /// A shard of pairs of a whole cache.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not there, or not what was written.
    pub fn pair_shard(&self, number: usize, layout: &PairLayout<'_>) -> Result<PairShard, DataError> {
        let shard = PairShard::of(self.require(ShardKind::Pairs, number)?, layout)?;
        let resolutions: Vec<_> = shard.pairs().iter().map(|pair| pair.map(|pair| pair.resolution)).collect();
        if self.outline(number)? == (PairOutline { resolutions, skipped: shard.skipped().to_vec() }) {
            return Ok(shard);
        }
        let what = format!("its pairs, of which {INDEX} says something else");
        Err(DataError::DamagedCache {
            path: self.path.join(&self.listed(ShardKind::Pairs, number)?.file),
            what,
        })
    }

    /// A shard of captions of a whole cache.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not there, or not what was written.
    pub fn text_shard(&self, number: usize, layout: &TextLayout) -> Result<TextShard, DataError> {
        TextShard::of(self.require(ShardKind::Text, number)?, layout)
    }

    /// What the index of a whole cache says of a shard.
    fn listed(&self, kind: ShardKind, number: usize) -> Result<&Listed, DataError> {
        let missing = || DataError::DamagedCache {
            path: self.path.clone(),
            what: format!("shard {number} of {}, which is missing", kind.name()),
        };
        let listed = self.listed.as_ref().and_then(|listed| listed.get(&(kind, number)));
        listed.ok_or_else(missing)
    }

    /// A shard of a whole cache, its header and tables compared with the index.
    fn require(&self, kind: ShardKind, number: usize) -> Result<ShardFile, DataError> {
        let listed = self.listed(kind, number)?;
        let path = self.path.join(&listed.file);
        let damaged = |what| DataError::DamagedCache { path: path.clone(), what };
        let shard = ShardFile::open(&path).map_err(|error| damaged(error.to_string()))?;
        if shard.head() != listed.head {
            return Err(other_head(path));
        }
        Ok(shard)
    }

    /// Whether a shard is there and its bytes are those it is named after. One that is not is removed. It is read for that, unless what
    /// is written down beside it says that nobody has touched it; its rows are then checked when they are used.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read or removed.
    pub fn keeps(&mut self, kind: ShardKind, number: usize) -> Result<bool, DataError> {
        let Some(path) = self.shards.get(&(kind, number)) else { return Ok(false) };
        if let Some(listed) = noted(path) {
            self.known.insert((kind, number), listed);
            return Ok(true);
        }
        let sha256 = sha256_file(path)?;
        if named_after(path, &sha256) {
            let bytes = fs::metadata(path).map_err(|e| StoreError::io("read", path, e))?.len();
            let listed = Listed::with(path, bytes, sha256)?;
            // Where it cannot be written down, the shard is read again the next time.
            let _ = note(path, &listed);
            self.known.insert((kind, number), listed);
            return Ok(true);
        }
        let _ = fs::remove_file(note_of(path));
        fs::remove_file(path).map_err(|e| StoreError::io("remove", path, e))?;
        self.shards.remove(&(kind, number));
        Ok(false)
    }

    /// Writes a shard, atomically.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn add(&mut self, kind: ShardKind, number: usize, bytes: &[u8]) -> Result<(), DataError> {
        let sha256 = sha256_bytes(bytes);
        let name = format!("{}-{number:05}-{}.safetensors", kind.name(), &sha256[..DIGITS]);
        let path = self.path.join(name);
        atomic::write_bytes(&path, bytes)?;
        let listed = Listed::with(&path, bytes.len() as u64, sha256)?;
        note(&path, &listed)?;
        self.known.insert((kind, number), listed);
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
        let paths: Option<Vec<_>> = numbers.map(|key| Some((key, self.shards.get(&key)?))).collect();
        let Some(paths) = paths else { return Ok(false) };
        let listed = paths.iter().map(|(key, path)| {
            let known = self.known.get(key).filter(|listed| listed.file == file_name(path)).cloned();
            known.or_else(|| noted(path)).map_or_else(|| Listed::of(path), Ok)
        });
        let index = Index::of(listed.collect::<Result<_, _>>()?);
        index.write(&self.path)?;
        // The index says the same from here on. Another process that misses one reads the shard.
        paths.iter().for_each(|(_, path)| drop(fs::remove_file(note_of(path))));
        self.adopt(index)?;
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
        let Some(listed) = &self.listed else {
            return Err(DataError::DamagedCache {
                path: self.path.clone(),
                what: format!("{INDEX}, which is missing"),
            });
        };
        let all: u64 = listed.values().map(|shard| shard.bytes).sum();
        let mut done = 0;
        for listed in listed.values() {
            verify(&self.path, listed)?;
            done += listed.bytes;
            on_shard(done, all);
        }
        Ok(())
    }

    /// Bytes of all shards together.
    pub fn bytes(&self) -> u64 {
        self.shards.values().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    /// Removes what writers that have ended left. What cannot be removed does no harm.
    fn sweep(&self) {
        let _ = atomic::sweep(&self.path);
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            // Those of earlier versions.
            if entry.file_name().to_string_lossy().starts_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Compares a whole shard with the index.
/// The key of a cache, in the spelling of any version.
fn read_key(path: &Path) -> Result<Key, DataError> {
    let read = json::read(path).and_then(|value| {
        Key::parse(value).map_err(|source| StoreError::Json { path: path.to_owned(), source })
    });
    read.map_err(|error| match error.damage() {
        Some(what) => DataError::DamagedKey { path: path.to_owned(), what },
        None => error.into(),
    })
}

fn verify(folder: &Path, Listed { file, sha256, .. }: &Listed) -> Result<(), DataError> {
    if sha256_file(folder.join(file))? == *sha256 {
        return Ok(());
    }
    let what = format!("its bytes, which have another SHA-256 than {INDEX} says");
    Err(DataError::DamagedCache { path: folder.join(file), what })
}

/// The index of an earlier version with what it lacks: outlines, for which headers and tables are read; or checksums of these, too, for
/// which every shard is compared with what it has.
fn completed(folder: &Path, index: &Index) -> Result<Index, DataError> {
    let shards = index.shards.iter().map(|listed| {
        let path = folder.join(&listed.file);
        if !index.covers_heads() {
            verify(folder, listed)?;
        }
        let found = Listed::with(&path, listed.bytes, listed.sha256.clone());
        let found =
            found.map_err(|error| DataError::DamagedCache { path: path.clone(), what: error.to_string() })?;
        if index.covers_heads() && found.head != listed.head {
            return Err(other_head(path));
        }
        Ok(found)
    });
    let index = Index::of(shards.collect::<Result<_, DataError>>()?);
    // Where it cannot be written, the same is read again the next time.
    let _ = index.write(folder);
    Ok(index)
}

fn other_head(path: PathBuf) -> DataError {
    let what = format!("its header or a table, of which {INDEX} has another checksum");
    DataError::DamagedCache { path, what }
}

/// Holds the lengths of all shards against the index, by one listing of the folder.
fn check_lengths(folder: &Path, index: &Index) -> Result<(), DataError> {
    let fail = |e| StoreError::io("read", folder, e);
    let mut lengths = HashMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let found = if is_link { fs::metadata(entry.path()) } else { entry.metadata() };
        lengths.extend(found.ok().map(|found| (entry.file_name(), found.len())));
    }
    for Listed { file, bytes, .. } in &index.shards {
        let found = lengths.get(OsStr::new(file));
        if found != Some(bytes) {
            let found = found.map_or("not there".to_owned(), |found| format!("{found} bytes long"));
            let what = format!("its length: it is {found}, not {bytes} bytes long");
            return Err(DataError::DamagedCache { path: folder.join(file), what });
        }
    }
    Ok(())
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn named_after(path: &Path, sha256: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(&format!("-{}", &sha256[..DIGITS])))
}

/// Kind and number of the shard of this name, `None` for the name of something else.
pub(super) fn shard_of(name: &str) -> Option<(ShardKind, usize)> {
    let mut parts = name.strip_suffix(".safetensors")?.split('-');
    let kind = parts.next()?;
    let kind = [ShardKind::Pairs, ShardKind::Text].into_iter().find(|known| known.name() == kind)?;
    Some((kind, parts.next()?.parse().ok()?))
}

/// The shards in a folder by kind and number.
fn list(folder: &Path) -> Result<BTreeMap<(ShardKind, usize), PathBuf>, DataError> {
    let fail = |e| StoreError::io("read", folder, e);
    let mut shards = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if let Some(key) = shard_of(&file_name(&path)) {
            shards.insert(key, path);
        }
    }
    Ok(shards)
}
