//! Weight files mapped into memory: read by the kernel when touched, never copied as a whole.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use tastemaker_store::{StoreError, regular};
use tastemaker_weights::WeightFile;

use crate::faults::{self, Known};

/// A file in the address space.
///
/// Where the file is cut short while it is open, a read beyond its end faults. [`faults::end_with`] says which file it was; without it the
/// process ends by the signal. [`Mapped::is_whole`] finds what is cut within a page, which reads as zeros.
#[derive(Debug, Clone)]
pub struct Mapped(Arc<Open>);

#[derive(Debug)]
struct Open {
    /// Holds the place where a fault finds the file's name; given up before the map is.
    _known: Option<Known>,
    map: Mmap,
    file: File,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let fail = |error| StoreError::io("read", path, error);
        let file = regular::open(path)?;
        #[expect(unsafe_code, reason = "mapping a file is unsafe because others may change it meanwhile")]
        // SAFETY: the map is only read, as bytes of which every value is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        let known = faults::known(&map, path);
        Ok(Self(Arc::new(Open { _known: known, map, file })))
    }

    /// Whether the file is still as long as when it was opened.
    pub fn is_whole(&self) -> bool {
        self.0.file.metadata().is_ok_and(|now| now.len() >= self.0.map.len() as u64)
    }

    /// Gives the pages behind `part` back to the kernel, which reads them again if they are asked for again.
    ///
    /// Without it a model that is loaded counts twice: once as tensors, once as pages of its file. Bytes that lie elsewhere
    /// are left alone.
    pub fn release(&self, part: &[u8]) {
        let map = &self.0.map;
        let start = map.as_ptr() as usize;
        let Some(offset) = (part.as_ptr() as usize).checked_sub(start) else { return };
        if part.is_empty() || offset + part.len() > map.len() {
            return;
        }
        #[cfg(unix)]
        {
            #[expect(unsafe_code, reason = "advice of this kind is unsafe for maps that are written to")]
            // SAFETY: a read-only map of a file gives the same bytes when its pages are read again.
            let advised =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, part.len()) };
            drop(advised);
        }
    }
}

/// Opens a weights file through a map.
///
/// # Errors
/// The store's errors for a file that is missing or malformed.
pub fn open(path: impl AsRef<Path>) -> Result<(WeightFile, Mapped), StoreError> {
    let path = path.as_ref();
    let map = Mapped::open(path)?;
    Ok((WeightFile::over(path, Arc::new(map.clone()))?, map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_can_be_read_again() {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let path = std::env::temp_dir().join(format!("tastemaker-mapped-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let map = Mapped::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(map.as_ref(), bytes);
        map.release(&map.as_ref()[5_000..90_000]);
        map.release(&bytes);
        assert_eq!(map.as_ref(), bytes);
    }
}
