//! A reader that stops where something has no end.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};

use tastemaker_store::tree::BlobReader;

/// Reads at most so many bytes as are left; what is sought over does not count.
pub struct Metered<'a> {
    /// What is read.
    pub reader: BlobReader<'a>,
    /// Bytes left, set anew by whoever begins the next part.
    pub left: &'a Cell<usize>,
    /// What has no end, for the error.
    pub endless: &'static str,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(n);
        self.left.set(left.ok_or_else(|| io::Error::other(self.endless))?);
        Ok(n)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}
