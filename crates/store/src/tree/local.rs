//! A folder on this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Blob, Entry, Tree};
use crate::StoreError;

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
        let mut entries = Vec::new();
        list(&self.folder, "", 0, &mut entries)?;
        entries.sort_unstable();
        Ok(entries)
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        // A file whose size cannot be asked for cannot be read either.
        Ok(fs::metadata(self.place(path)).ok().filter(fs::Metadata::is_file).map(|file| file.len()))
    }

    fn open(&self, path: &str) -> Result<Box<dyn Blob>, StoreError> {
        Ok(Box::new(LocalFile::open(self.place(path))?))
    }
}

fn list(folder: &Path, prefix: &str, depth: usize, entries: &mut Vec<Entry>) -> Result<(), StoreError> {
    let fail = |e| StoreError::io("read", folder, e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        // A name that is not UTF-8 is listed as well as can be: opening it then fails.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let below = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() && depth < DEPTH => list(&path, &below, depth + 1, entries)?,
            Ok(found) if found.is_file() => entries.push(Entry { path: below, bytes: found.len() }),
            _ => {}
        }
    }
    Ok(())
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
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|e| StoreError::io("read", &path, e))?;
        Ok(Self { path, file, size })
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
