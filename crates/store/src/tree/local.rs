//! A folder on this machine.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Blob, Entry, Tree, is_hidden};
use crate::{StoreError, regular};

/// Folders within folders that are gone into.
const DEPTH: usize = 32;

/// A folder on this machine. Paths that lead out of it, or are whole, are followed: a list of one's own images may name any.
#[derive(Debug, Clone)]
pub struct LocalTree {
    folder: PathBuf,
}

impl LocalTree {
    /// A folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }
}

impl Tree for LocalTree {
    fn place(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut walk = Walk::default();
        walk.go_into(&self.folder, "")?;
        // Links come after all folders that are really here, so that these have their own names.
        while let Some((folder, below)) = walk.links.pop_front() {
            walk.go_into(&folder, &below)?;
        }
        walk.entries.sort_unstable();
        Ok(walk.entries)
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        // A file whose size cannot be asked for cannot be read either.
        Ok(fs::metadata(self.place(path)).ok().filter(fs::Metadata::is_file).map(|file| file.len()))
    }

    fn open(&self, path: &str) -> Result<Box<dyn Blob>, StoreError> {
        Ok(Box::new(LocalFile::open(self.place(path))?))
    }
}

/// The one walk through folders: hidden names are passed over, links are followed, and a folder is gone into once, however many
/// links lead to it.
#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    /// Folders that were gone into, without links in their paths.
    known: HashSet<PathBuf>,
    /// Links to folders that wait, each with its path below the tree.
    links: VecDeque<(PathBuf, String)>,
}

impl Walk {
    fn go_into(&mut self, folder: &Path, prefix: &str) -> Result<(), StoreError> {
        let fail = |e| StoreError::io("read", folder, e);
        if prefix.matches('/').count() > DEPTH || !self.known.insert(folder.canonicalize().map_err(fail)?) {
            return Ok(());
        }
        let paths = fs::read_dir(folder).map_err(fail)?.map(|entry| Ok(entry.map_err(fail)?.path()));
        let mut paths = paths.collect::<Result<Vec<PathBuf>, StoreError>>()?;
        paths.sort_unstable();
        for path in paths {
            // A name that is not UTF-8 is listed as well as can be: opening it then fails.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if is_hidden(&name) {
                continue;
            }
            let below = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() && path.is_symlink() => self.links.push_back((path, below)),
                Ok(found) if found.is_dir() => self.go_into(&path, &below)?,
                Ok(found) if found.is_file() => {
                    self.entries.push(Entry { path: below, bytes: found.len() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file on this machine.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LocalFile {
    /// Opens it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let file = regular::open(&path)?;
        let size = file.metadata().map_err(|e| StoreError::io("read", &path, e))?.len();
        Ok(Self { path, file, size })
    }

    /// Asks the kernel to read a part now, so that whoever reads it soon does not wait for the disk. Where it cannot, nothing is lost
    /// but time.
    pub fn read_ahead(&self, start: u64, length: usize) {
        #[cfg(target_os = "linux")]
        if let Some(length) = std::num::NonZero::new(length as u64) {
            let _ = rustix::fs::fadvise(&self.file, start, Some(length), rustix::fs::Advice::WillNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, length);
    }
}

impl Blob for LocalFile {
    fn place(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, start: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.size) {
            let found = format!("{} bytes", self.size);
            return Err(StoreError::malformed(&self.path, found, format!("{length} more at {start}")));
        }
        let mut bytes = vec![0; length];
        read_exact_at(&self.file, &mut bytes, start).map_err(|e| StoreError::io("read", &self.path, e))?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut start: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, start)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => (bytes, start) = (&mut bytes[n..], start + n as u64),
        }
    }
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(folder: &Path) -> Vec<String> {
        LocalTree::new(folder).entries().expect("a folder").into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn a_folder_is_walked_once_whatever_links_lead_to_it() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/1.png"), "").unwrap();
        fs::write(elsewhere.path().join("2.png"), "").unwrap();
        for (to, link) in [
            (root, "loop"),
            (&root.join("a"), "A"),
            (&root.join("a"), "a/b/up"),
            (elsewhere.path(), "there"),
            (root, "a/root"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        symlink(root, elsewhere.path().join("back")).unwrap();
        symlink("nowhere", root.join("broken")).unwrap();
        symlink(root.join("a/b/1.png"), root.join("link.png")).unwrap();
        assert_eq!(paths(root), ["a/b/1.png", "link.png", "there/2.png"]);
    }

    #[test]
    fn hidden_files_and_what_systems_leave_behind_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            ["1.png", "._1.png", ".DS_Store", ".ipynb_checkpoints/1.png", "__MACOSX/1.png", "a/.b/1.png"]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(paths(folder.path()), ["1.png"]);
    }
}
