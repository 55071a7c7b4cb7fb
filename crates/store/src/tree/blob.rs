//! One file, read in parts.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::StoreError;

/// A file that is read in parts, by any number of threads at once.
pub trait Blob: Send + Sync + std::fmt::Debug {
    /// Where it is, for errors.
    fn place(&self) -> &Path;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// The bytes from `start` on, `length` of them.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] if the file ends before, [`StoreError::Io`].
    fn read_at(&self, start: u64, length: usize) -> Result<Vec<u8>, StoreError>;
}

/// All bytes of a file that has at most `limit` of them.
///
/// # Errors
/// [`StoreError::Malformed`] for a longer one, [`StoreError::Io`].
pub fn read_whole(blob: &dyn Blob, limit: u64) -> Result<Vec<u8>, StoreError> {
    if blob.size() > limit {
        let (found, wanted) = (format!("{} bytes", blob.size()), format!("at most {limit}"));
        return Err(StoreError::malformed(blob.place(), found, wanted));
    }
    blob.read_at(0, blob.size() as usize)
}

/// A text file of at most `limit` bytes; a byte order mark in front is skipped.
///
/// # Errors
/// [`StoreError::NotUtf8`], and as [`read_whole`].
pub fn read_text(blob: &dyn Blob, limit: u64) -> Result<String, StoreError> {
    let bytes = read_whole(blob, limit)?;
    let text = String::from_utf8(bytes).map_err(|error| StoreError::NotUtf8 {
        path: blob.place().to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A file read from front to back, in large parts.
#[derive(Debug)]
pub struct BlobReader<'a> {
    blob: &'a dyn Blob,
    position: u64,
    part: Vec<u8>,
    /// Offset of `part` in the file.
    start: u64,
    faults: Faults,
}

/// What kept a file from being read, for those whose library tells of it in its own words only.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Option<StoreError>>>);

impl Faults {
    /// The last fault, once.
    pub fn take(&self) -> Option<StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Bytes per part.
const PART: u64 = 1 << 20;

impl<'a> BlobReader<'a> {
    /// From the front of a file.
    pub fn new(blob: &'a dyn Blob) -> Self {
        Self { blob, position: 0, part: Vec::new(), start: 0, faults: Faults::default() }
    }

    /// As [`BlobReader::new`]; what keeps the file from being read goes to `faults`.
    pub fn telling(blob: &'a dyn Blob, faults: Faults) -> Self {
        Self { faults, ..Self::new(blob) }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size().saturating_sub(self.position);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let within = self.position.checked_sub(self.start).filter(|&at| at < self.part.len() as u64);
        let at = match within {
            Some(at) => at as usize,
            None => {
                self.part = self.blob.read_at(self.position, left.min(PART) as usize).map_err(|error| {
                    if Arc::strong_count(&self.faults.0) == 1 {
                        return io::Error::other(error);
                    }
                    let text = error.to_string();
                    *self.faults.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    io::Error::other(text)
                })?;
                self.start = self.position;
                0
            }
        };
        let n = buffer.len().min(self.part.len() - at);
        buffer[..n].copy_from_slice(&self.part[at..at + n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for BlobReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.blob.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position =
            position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the file"))?;
        Ok(self.position)
    }
}
