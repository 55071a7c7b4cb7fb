//! Writing a file so that it is whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::StoreError;

/// Writes `path` through `fill`: a temporary sibling, synced, renamed over the target, then the folder
/// synced.
///
/// Whoever reads `path` meanwhile, or after a crash at any moment, finds the old contents or the new, whole.
///
/// # Errors
/// [`StoreError::Io`] if the folder is missing or not writable, the disk is full, or `fill` fails; `path` is
/// then untouched.
pub fn write(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let path = path.as_ref();
    let folder = folder_of(path);
    let mut sibling = builder().tempfile_in(folder).map_err(|e| StoreError::io("write", path, e))?;
    {
        let mut out = BufWriter::with_capacity(1 << 20, sibling.as_file_mut());
        fill(&mut out).and_then(|()| out.flush()).map_err(|e| StoreError::io("write", path, e))?;
    }
    sibling.as_file().sync_all().map_err(|e| StoreError::io("sync", path, e))?;
    sibling.persist(path).map_err(|e| StoreError::io("rename", path, e.error))?;
    sync_folder(folder)
}

/// [`write()`] for bytes already in memory.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), StoreError> {
    write(path, |out| out.write_all(bytes))
}

/// Renames a file that is already synced over `path` in the same folder, then syncs the folder.
///
/// # Errors
/// [`StoreError::Io`].
pub fn rename(from: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<(), StoreError> {
    let path = path.as_ref();
    fs::rename(from, path).map_err(|e| StoreError::io("rename", path, e))?;
    sync_folder(folder_of(path))
}

/// Creates a folder and its parents; one that is there already is fine.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be made, for instance because a file has its name.
pub fn create_folder(path: impl AsRef<Path>) -> Result<(), StoreError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|e| StoreError::io("create", path, e))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn builder<'a>() -> tempfile::Builder<'a, 'a> {
    use std::os::unix::fs::PermissionsExt;
    // A temporary file is private by default; a result is for whoever the user's umask lets read it.
    let mut builder = tempfile::Builder::new();
    builder.permissions(fs::Permissions::from_mode(0o666));
    builder
}

#[cfg(not(unix))]
fn builder<'a>() -> tempfile::Builder<'a, 'a> {
    tempfile::Builder::new()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // Without this the rename itself may be lost with the power.
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(|e| StoreError::io("sync", folder, e))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_contents_replace_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write_bytes(&path, b"old").unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_old_contents_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write_bytes(&path, b"old").unwrap();
        let outcome = write(&path, |out| {
            out.write_all(b"half of the ne")?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(outcome, Err(StoreError::Io { action: "write", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere/plan.json");
        let error = write_bytes(&path, b"x").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
    }

    #[test]
    fn a_folder_under_a_file_cannot_be_created() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_bytes(&file, b"x").unwrap();
        assert!(matches!(create_folder(file.join("sub")), Err(StoreError::Io { action: "create", .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_result_is_readable_by_others_as_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_bytes(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
