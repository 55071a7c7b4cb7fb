//! Whether fetched files are still what was fetched: blobs are named after their checksums.
//!
//! Every blob is compared once, and again whenever its size or time of change is another one; which were is kept in the
//! repository's folder.

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
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    format: u32,
    /// Size and time of change of each, by name.
    blobs: BTreeMap<String, (u64, String)>,
}

impl Snapshot {
    /// Compares files that were not compared since they changed last with the checksums they are named after. `before` is called
    /// with the bytes of these files, if there are any.
    ///
    /// # Errors
    /// [`HubError::DamagedBlob`] naming the first that differs; [`StoreError`] if one cannot be read.
    pub fn compare(&self, before: impl FnOnce(u64)) -> Result<(), HubError> {
        let mut blobs = Vec::new();
        blobs_of(self.folder(), DEPTH, &mut blobs)?;
        // `snapshots/<commit>` lies in the repository's folder.
        let Some(repo) = self.folder().parent().and_then(Path::parent) else { return Ok(()) };
        let folder = repo.join(FOLDER);
        let path = folder.join(RECORD);
        let known = known(&path);
        let mut found = known.clone();
        let mut new = Vec::new();
        for (pointer, blob) in blobs {
            let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let state = state(&blob)?;
            if is_checksum(&name) && known.blobs.get(&name) != Some(&state) {
                new.push((pointer, blob, state.0));
                found.blobs.insert(name, state);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        before(new.iter().map(|(_, _, bytes)| bytes).sum());
        for (pointer, blob, _) in new {
            let name = blob.file_name().unwrap_or_default().to_string_lossy();
            if let Some(mismatch) = verify(&blob, &name, None)? {
                return Err(HubError::DamagedBlob { path: pointer, blob, found: mismatch.found });
            }
        }
        // Where it cannot be kept, all is compared again the next time.
        let _ = atomic::create_folder(&folder).and_then(|()| sealed::write(path, &found));
        Ok(())
    }
}

/// What was compared before; nothing, if that cannot be known.
fn known(path: &Path) -> Compared {
    let read = sealed::read(path).ok().filter(|Sealed { is_sealed, .. }| *is_sealed);
    let known = read.and_then(|read| serde_json::from_value(read.value).ok());
    known
        .filter(|known: &Compared| known.format == 1)
        .unwrap_or(Compared { format: 1, ..Compared::default() })
}

/// Size and time of change of a blob.
fn state(blob: &Path) -> Result<(u64, String), StoreError> {
    let found = fs::metadata(blob).map_err(|e| StoreError::io("read", blob, e))?;
    let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((found.len(), changed.unwrap_or_default().as_nanos().to_string()))
}

/// The files of a folder that are links to blobs, with these.
fn blobs_of(folder: &Path, depth: usize, blobs: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), StoreError> {
    let fail = |e| StoreError::io("read", folder, e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let found = fs::symlink_metadata(&path).map_err(|e| StoreError::io("read", &path, e))?;
        if found.is_dir() && depth > 0 {
            blobs_of(&path, depth - 1, blobs)?;
        } else if found.is_symlink()
            && let Ok(blob) = fs::canonicalize(&path)
            && blob.is_file()
        {
            blobs.push((path, blob));
        }
    }
    blobs.sort_unstable();
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
