//! Blobs under the names of a repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tastemaker_store::{StoreError, atomic};

/// Makes `pointer`, which lies below `repo`, stand for `blob`, which lies there too: a relative link, or a copy where links
/// are impossible.
pub(crate) fn link(repo: &Path, pointer: &Path, blob: &Path) -> Result<(), StoreError> {
    let folder = pointer.parent().unwrap_or(repo);
    atomic::create_folder(folder)?;
    let up = folder.strip_prefix(repo).map_or(0, |below| below.components().count());
    let down = blob.strip_prefix(repo).unwrap_or(blob);
    let target: PathBuf = std::iter::repeat_n(Path::new(".."), up).chain([down]).collect();
    place(&target, pointer, blob, symlink)
}

fn place(
    target: &Path,
    pointer: &Path,
    blob: &Path,
    symlink: impl Fn(&Path, &Path) -> io::Result<()>,
) -> Result<(), StoreError> {
    match symlink(target, pointer) {
        // It is right, or it is left from something that is gone.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_link(pointer).is_ok_and(|found| found == target) {
                return Ok(());
            }
            fs::remove_file(pointer).map_err(|e| StoreError::io("remove", pointer, e))?;
            symlink(target, pointer).or_else(|_| copy(blob, pointer))
        }
        Err(_) => copy(blob, pointer),
        Ok(()) => Ok(()),
    }
}

fn copy(blob: &Path, pointer: &Path) -> Result<(), StoreError> {
    let mut from = fs::File::open(blob).map_err(|e| StoreError::io("read", blob, e))?;
    atomic::write(pointer, |out| io::copy(&mut from, out).map(drop))
}

#[cfg(unix)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(windows)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("blobs/abc");
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(&blob, "contents").unwrap();
        (folder, blob)
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_relative_and_replaces_a_broken_one() {
        let (folder, blob) = blob();
        let pointer = folder.path().join("snapshots/c/unet/config.json");
        link(folder.path(), &pointer, &blob).unwrap();
        link(folder.path(), &pointer, &blob).unwrap();
        assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../blobs/abc"));
        fs::remove_file(&pointer).unwrap();
        symlink(Path::new("nowhere"), &pointer).unwrap();
        link(folder.path(), &pointer, &blob).unwrap();
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "contents");
    }

    #[test]
    fn without_links_there_is_a_copy() {
        let (folder, blob) = blob();
        let pointer = folder.path().join("config.json");
        let refuse = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::Unsupported));
        place(Path::new("blobs/abc"), &pointer, &blob, refuse).unwrap();
        assert!(!pointer.is_symlink());
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "contents");
    }
}
