//! A bucket, a container or a server, asked by threads that wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path as Place, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};

use super::blocks::{BLOCK, Blocks};
use super::fault::fault;
use crate::HubError;
use tastemaker_store::StoreError;
use tastemaker_store::tree::{Entry, is_hidden};

/// The most files that a listing may have.
const MOST: usize = 5_000_000;

/// Objects, and what is known of them.
pub(super) struct Objects {
    store: Box<dyn ObjectStore>,
    root: String,
    blocks: Blocks,
    /// By hash of the path: which version of an object is read, so that no other one is.
    versions: Mutex<HashMap<u64, Version>>,
    hasher: RandomState,
}

impl fmt::Debug for Objects {
    // Without the store, which knows credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What tells one version of an object from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Its size in bytes.
    pub size: u64,
    /// Hash of its entity tag, where a server gives one.
    tag: Option<u64>,
    /// Seconds of its last change, where a server says them.
    modified: Option<i64>,
}

impl Version {
    /// Of an object of which only the size is known.
    pub fn sized(size: u64) -> Self {
        Self { size, tag: None, modified: None }
    }

    /// Whether two may be of one and the same version. What only one of them says does not count.
    fn agrees(self, other: Self) -> bool {
        let differ = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
        let tagged = self.tag.is_some() && other.tag.is_some();
        let moved = self.modified.zip(other.modified).is_some_and(|(a, b)| a != b);
        self.size == other.size && !differ(self.tag, other.tag) && (tagged || !moved)
    }
}

impl Objects {
    /// Those of a bucket, container or server that people call `root`.
    pub fn new(store: Box<dyn ObjectStore>, root: impl Into<String>) -> Self {
        let (blocks, versions, hasher) = Default::default();
        Self { store, root: root.into(), blocks, versions, hasher }
    }

    /// What people call an object.
    pub fn place(&self, path: &str) -> PathBuf {
        format!("{}/{path}", self.root).into()
    }

    /// An object's version as it is now, `None` if there is none.
    pub fn version(&self, path: &Path) -> Result<Option<Version>, HubError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match wait(self.store.get_opts(path, options))? {
            Ok(found) => {
                let version = self.version_of(&found.meta);
                self.settle(path, version)?;
                Ok(Some(version))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault(&self.place(path.as_ref()), error)),
        }
    }

    /// Bytes of a block of an object.
    pub fn block(&self, path: &Path, version: Version, number: u64) -> Result<Bytes, HubError> {
        let key = (self.hasher.hash_one(path.as_ref()), number);
        self.blocks.get(key, || self.fetch(path, version, number))
    }

    fn fetch(&self, path: &Path, version: Version, number: u64) -> Result<Bytes, HubError> {
        let range = number * BLOCK..((number + 1) * BLOCK).min(version.size);
        // A small file is asked for whole, so that servers that send no parts can serve it.
        let is_whole = range == (0..version.size);
        let options = GetOptions {
            range: (!is_whole).then(|| GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let place = self.place(path.as_ref());
        let got = wait(async {
            let found = self.store.get_opts(path, options).await?;
            let meta = found.meta.clone();
            if meta.size != version.size {
                return Ok((meta, Bytes::new()));
            }
            Ok((meta, found.bytes().await?))
        })?;
        let (meta, bytes) = got.map_err(|error| fault(&place, error))?;
        let found = self.version_of(&meta);
        if !version.agrees(found) {
            return Err(changed(&place));
        }
        self.settle(path, found)?;
        let wanted = range.end - range.start;
        if bytes.len() as u64 != wanted {
            let (url, found) = (place.display().to_string(), format!("with {} bytes", bytes.len()));
            return Err(HubError::Answer { url, found, wanted: format!("{wanted} bytes") });
        }
        Ok(bytes)
    }

    /// Everything below a folder that ends in `/`, or below all, paths without it. As in folders on this machine, hidden
    /// names do not count.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, HubError> {
        let place = self.place(folder);
        let prefix = (!folder.is_empty()).then(|| Path::parse(folder)).transpose();
        let prefix = prefix.map_err(|error| fault(&place, error.into()))?;
        let listed = wait(async {
            let mut objects = self.store.list(prefix.as_ref());
            let mut entries = Vec::new();
            while let Some(object) = objects.try_next().await? {
                let Some(path) = object.location.as_ref().strip_prefix(folder) else { continue };
                if path.is_empty() || is_hidden(path) {
                    continue;
                }
                if entries.len() == MOST {
                    return Ok(None);
                }
                entries.push(Entry { path: path.to_owned(), bytes: object.size });
            }
            Ok(Some(entries))
        })?;
        let mut entries = listed.map_err(|error| fault(&place, error))?.ok_or_else(|| {
            StoreError::malformed(&place, format!("more than {MOST} files"), "a folder with fewer")
        })?;
        entries.sort_unstable();
        Ok(entries)
    }

    fn version_of(&self, meta: &ObjectMeta) -> Version {
        let tag = meta.e_tag.as_deref().map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
        let tag = tag.filter(|tag| !tag.is_empty()).map(|tag| self.hasher.hash_one(tag));
        let seconds = meta.last_modified.timestamp();
        Version { size: meta.size, tag, modified: (seconds != 0).then_some(seconds) }
    }

    /// Takes note of a version that was seen, and complains if another one was seen before.
    fn settle(&self, path: &Path, version: Version) -> Result<(), HubError> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match versions.entry(self.hasher.hash_one(path.as_ref())) {
            Vacant(place) => {
                place.insert(version);
                Ok(())
            }
            Occupied(mut known) if known.get().agrees(version) => {
                let Version { tag, modified, .. } = known.get_mut();
                *tag = tag.or(version.tag);
                *modified = modified.or(version.modified);
                Ok(())
            }
            Occupied(_) => Err(changed(&self.place(path.as_ref()))),
        }
    }
}

fn changed(place: &Place) -> HubError {
    HubError::Changed { url: place.display().to_string() }
}

/// The result of a future, on this thread.
fn wait<F: Future>(future: F) -> Result<F::Output, HubError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| StoreError::io("create", Place::new("a timer"), e))?;
    Ok(runtime.block_on(future))
}
