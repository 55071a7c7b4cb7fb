//! Whether fetched files are still what was fetched: blobs are named after their checksums.
//!
//! Every blob is compared once, and again whenever anything shows that it may have changed: its size, its times, or that it is
//! another file. Which were is kept in the repository's folder. Bytes that go bad on the disk show in none of that;
//! [`Snapshot::verify`] reads everything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use tastemaker_store::sealed::{self, Sealed};
use tastemaker_store::{StoreError, atomic};

use crate::HubError;
use crate::cache::Snapshot;
use crate::verify::{is_checksum, verify};

/// In the repository's folder, beside `blobs` and `snapshots`.
const FOLDER: &str = ".tastemaker";
const RECORD: &str = "compared.json";
/// Folders within a snapshot that are gone into.
const DEPTH: usize = 16;

/// Blobs that were compared. Serialized field by field, so names are a format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    format: u32,
    /// Size of each by name, and what changes when it is written: as [`state`] has it.
    blobs: BTreeMap<String, (u64, String)>,
}

/// Version of the record. The first had only the time that whoever writes a file can set as they like, and counts as none.
const FORMAT: u32 = 2;

impl Default for Compared {
    fn default() -> Self {
        Self { format: FORMAT, blobs: BTreeMap::new() }
    }
}

/// What [`Snapshot::verify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files that were compared, and are what was fetched.
    pub n_files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files of which the server gave no checksum.
    pub n_without: usize,
}

impl Snapshot {
    /// Compares files that were not compared since they changed last with the checksums they are named after. `before` is called
    /// with the bytes of these files, if there are any.
    ///
    /// # Errors
    /// [`HubError::DamagedBlob`] naming the first that differs; [`StoreError`] if one cannot be read.
    pub fn compare(&self, before: impl FnOnce(u64)) -> Result<(), HubError> {
        let record = Record::of(self.folder());
        let known = record.as_ref().map(Record::read).unwrap_or_default();
        let mut new = Vec::new();
        for blob in blobs_of(self.folder())? {
            if is_checksum(&blob.name) && known.blobs.get(&blob.name) != Some(&blob.state) {
                new.push(blob);
            }
        }
        if !new.is_empty() {
            before(new.iter().map(|blob| blob.state.0).sum());
            new.iter().try_for_each(Blob::verify)?;
            record.iter().for_each(|record| record.add(known.clone(), &new));
        }
        Ok(())
    }

    /// Compares every file with the checksum it is named after, whether that was done before or not. `on_file` is called before each
    /// with the bytes so far, and those of all.
    ///
    /// # Errors
    /// As [`Snapshot::compare`].
    pub fn verify(&self, mut on_file: impl FnMut(u64, u64)) -> Result<Verified, HubError> {
        let (named, others): (Vec<Blob>, Vec<Blob>) =
            blobs_of(self.folder())?.into_iter().partition(|blob| is_checksum(&blob.name));
        let bytes = named.iter().map(|blob| blob.state.0).sum();
        let mut done = 0;
        for blob in &named {
            on_file(done, bytes);
            blob.verify()?;
            done += blob.state.0;
        }
        if let Some(record) = Record::of(self.folder()) {
            record.add(record.read(), &named);
        }
        Ok(Verified { n_files: named.len(), bytes, n_without: others.len() })
    }
}

/// Where it is kept which blobs were compared.
struct Record(PathBuf);

impl Record {
    /// That of a snapshot's repository: `snapshots/<commit>` lies in the repository's folder.
    fn of(snapshot: &Path) -> Option<Self> {
        Some(Self(snapshot.parent()?.parent()?.join(FOLDER)))
    }

    /// What was compared before; nothing, if that cannot be known.
    fn read(&self) -> Compared {
        let read = sealed::read(self.0.join(RECORD)).ok().filter(|Sealed { is_sealed, .. }| *is_sealed);
        let known: Option<Compared> = read.and_then(|read| serde_json::from_value(read.value).ok());
        known.filter(|known| known.format == FORMAT).unwrap_or_default()
    }

    /// Adds blobs. Where the record cannot be kept, all is compared again the next time.
    fn add(&self, mut known: Compared, blobs: &[Blob]) {
        known.blobs.extend(blobs.iter().map(|blob| (blob.name.clone(), blob.state.clone())));
        let _ = atomic::create_folder(&self.0).and_then(|()| sealed::write(self.0.join(RECORD), &known));
    }
}

/// A fetched file.
struct Blob {
    /// Its name in the snapshot.
    pointer: PathBuf,
    path: PathBuf,
    /// What it is named after.
    name: String,
    /// As it was before it was compared.
    state: (u64, String),
}

impl Blob {
    fn verify(&self) -> Result<(), HubError> {
        match verify(&self.path, &self.name, None)? {
            None => Ok(()),
            Some(mismatch) => Err(HubError::DamagedBlob {
                path: self.pointer.clone(),
                blob: self.path.clone(),
                found: mismatch.found,
            }),
        }
    }
}

/// Size of a blob, and what is another one whenever it was written: the time of its contents, which anybody can set, the time of its
/// last change of any kind, which nobody can, and the number of its file.
fn state(blob: &Path) -> Result<(u64, String), StoreError> {
    let found = fs::metadata(blob).map_err(|e| StoreError::io("read", blob, e))?;
    let written = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let written = written.unwrap_or_default().as_nanos();
    #[cfg(unix)]
    let written = {
        use std::os::unix::fs::MetadataExt;
        format!("{written} {}.{:09} {}", found.ctime(), found.ctime_nsec(), found.ino())
    };
    Ok((found.len(), written.to_string()))
}

/// The files of a snapshot that are links to blobs.
fn blobs_of(snapshot: &Path) -> Result<Vec<Blob>, StoreError> {
    let mut found = Vec::new();
    links_of(snapshot, DEPTH, &mut found)?;
    found.sort_unstable();
    let blob = |(pointer, path): (PathBuf, PathBuf)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Blob { state: state(&path)?, pointer, path, name })
    };
    found.into_iter().map(blob).collect()
}

/// Links to files, each with what it leads to.
fn links_of(folder: &Path, depth: usize, links: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), StoreError> {
    let fail = |e| StoreError::io("read", folder, e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let found = fs::symlink_metadata(&path).map_err(|e| StoreError::io("read", &path, e))?;
        if found.is_dir() && depth > 0 {
            links_of(&path, depth - 1, links)?;
        } else if found.is_symlink()
            && let Ok(blob) = fs::canonicalize(&path)
            && blob.is_file()
        {
            links.push((path, blob));
        }
    }
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::names::{RepoId, Revision};
    use std::os::unix::fs::symlink;

    const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";
    /// Contents by name, large and small. Source: FIPS 180-4, and `git hash-object`.
    const BLOBS: [(&str, &[u8], &str); 3] = [
        (
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            b"abc",
            "unet/weights.safetensors",
        ),
        ("ce013625030ba8dba906f756967f9e9ca394464a", b"hello\n", "config.json"),
        ("an-etag-1", b"anything", "other.bin"),
    ];

    fn fetched() -> (tempfile::TempDir, Snapshot, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let repo = folder.path().join("models--org--name");
        let snapshot = repo.join("snapshots").join(COMMIT);
        fs::create_dir_all(repo.join("blobs")).unwrap();
        fs::create_dir_all(snapshot.join("unet")).unwrap();
        for (name, contents, file) in BLOBS {
            fs::write(repo.join("blobs").join(name), contents).unwrap();
            let up = "../".repeat(2 + file.matches('/').count());
            symlink(format!("{up}blobs/{name}"), snapshot.join(file)).unwrap();
        }
        let cache = Cache::new(folder.path());
        let found = cache.snapshot(&RepoId::model("org/name").unwrap(), &Revision::new(COMMIT).unwrap());
        (folder, found.unwrap().unwrap(), repo.join("blobs"))
    }

    #[test]
    fn blobs_are_compared_once_and_again_when_they_change() {
        let (_folder, snapshot, blobs) = fetched();
        let compared = |wanted: Option<u64>| {
            let mut bytes = None;
            snapshot.compare(|found| bytes = Some(found)).map(|()| assert_eq!(bytes, wanted))
        };
        compared(Some(9)).unwrap();
        compared(None).unwrap();
        for (name, contents, file) in &BLOBS[..2] {
            let mut damaged = contents.to_vec();
            damaged[1] ^= 1;
            fs::write(blobs.join(name), damaged).unwrap();
            let error = compared(None).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(name), "{error}");
            fs::write(blobs.join(name), contents).unwrap();
        }
        compared(Some(9)).unwrap();
        compared(None).unwrap();
    }

    #[test]
    fn bytes_that_changed_behind_an_unchanged_size_and_time_are_found() {
        let (_folder, snapshot, blobs) = fetched();
        snapshot.compare(|_| {}).unwrap();
        for (name, contents, file) in &BLOBS[..2] {
            let path = blobs.join(name);
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let rot = |contents: &[u8]| {
                // Longer than a file system's clock ticks.
                std::thread::sleep(std::time::Duration::from_millis(20));
                fs::write(&path, contents).unwrap();
                fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
            };
            let mut damaged = contents.to_vec();
            damaged[1] ^= 1;
            rot(&damaged);
            let error = snapshot.compare(|_| {}).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(name), "{error}");
            rot(contents);
            snapshot.compare(|_| {}).unwrap();
        }
    }

    #[test]
    fn all_files_are_verified_whatever_the_record_says() {
        let (folder, snapshot, blobs) = fetched();
        let mut calls = Vec::new();
        let found = snapshot.verify(|done, all| calls.push((done, all))).unwrap();
        assert_eq!(found, Verified { n_files: 2, bytes: 9, n_without: 1 });
        assert_eq!(calls, [(0, 9), (6, 9)]);
        snapshot.compare(|_| panic!("it is on record")).unwrap();
        // As a disk forgets: nothing about the file says so.
        let (name, contents, file) = BLOBS[0];
        let path = blobs.join(name);
        fs::write(&path, [contents, b"x"].concat()).unwrap();
        let record = Record::of(snapshot.folder()).unwrap();
        let known = record.read();
        let rotten = Blob {
            pointer: file.into(),
            path: path.clone(),
            name: name.into(),
            state: state(&path).unwrap(),
        };
        record.add(known, &[rotten]);
        snapshot.compare(|_| panic!("the record says that it was compared")).unwrap();
        assert!(snapshot.verify(|_, _| {}).unwrap_err().to_string().contains(file));
        drop(folder);
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let (folder, snapshot, _) = fetched();
        snapshot.compare(|_| {}).unwrap();
        let path = folder.path().join("models--org--name").join(FOLDER).join(RECORD);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut n_calls = 0;
        snapshot.compare(|_| n_calls += 1).unwrap();
        assert_eq!(n_calls, 1);
    }
}
