//! A file as the parquet crate reads one.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tastemaker_store::tree::Blob;

use super::honest;
use crate::budget::{Lease, PAGES};

/// A file, and how large the pages of what is read may be.
#[derive(Debug, Clone)]
pub struct Source {
    blob: Arc<dyn Blob>,
    /// Of a column: the largest page, and how they are packed.
    column: Option<(u64, Compression)>,
    pages: Arc<Mutex<Pages>>,
}

/// What the pages of a column that are held take from the budget: its dictionary, and the page that is being read.
#[derive(Debug, Default)]
struct Pages {
    dictionary: Option<Lease<'static>>,
    data: Option<Lease<'static>>,
    /// The header of the page that is read next.
    next: Option<Header>,
}

impl Pages {
    /// Takes what a page unpacks to, after the one before it is given back.
    fn take(&mut self, header: &Header) -> io::Result<()> {
        let place = if header.is_dictionary { &mut self.dictionary } else { &mut self.data };
        *place = None;
        *place = PAGES.try_take(header.unpacked);
        match place {
            Some(_) => Ok(()),
            None => Err(io::Error::other(format!(
                "a page of {} bytes beside others that are being read; wanted at most {} bytes of pages together",
                header.unpacked,
                PAGES.bytes()
            ))),
        }
    }
}

impl Source {
    /// A file. Where a column is read, with the most bytes that a page may unpack to, what is read from front to back are headers
    /// of pages, and no page may claim to unpack to more, or unpack to more than it claims.
    pub fn new(blob: Arc<dyn Blob>, column: Option<(u64, Compression)>) -> Self {
        Self { blob, column, pages: Arc::default() }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.blob.size()
    }
}

impl ChunkReader for Source {
    type T = SourceReader;

    fn get_read(&self, start: u64) -> Result<SourceReader> {
        Ok(SourceReader { source: self.clone(), position: start, part: Bytes::new(), started: false })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.blob.read_at(start, length).map_err(|e| ParquetError::External(Box::new(e)))?;
        let next = self.pages.lock().unwrap_or_else(PoisonError::into_inner).next.take();
        if let (Some((_, codec)), Some(header)) = (self.column, next)
            && let Some(packed) = header.packed(&bytes)
        {
            honest::check(codec, packed, header.unpacked)?;
        }
        Ok(bytes.into())
    }
}

/// Reads on from some place.
#[derive(Debug)]
pub struct SourceReader {
    source: Source,
    position: u64,
    part: Bytes,
    started: bool,
}

/// Bytes per part; headers of pages are shorter.
const PART: u64 = 512;

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            let left = self.source.blob.size().saturating_sub(self.position);
            if left == 0 {
                return Ok(0);
            }
            let part = self.source.blob.read_at(self.position, left.min(PART) as usize);
            self.part = part.map_err(io::Error::other)?.into();
        }
        if !self.started {
            self.started = true;
            if let (Some((limit, _)), Some(header)) = (self.source.column, Header::read(&self.part)) {
                let size = header.unpacked;
                if size > limit {
                    return Err(io::Error::other(format!("a page of {size} bytes; wanted at most {limit}")));
                }
                let mut pages = self.source.pages.lock().unwrap_or_else(PoisonError::into_inner);
                pages.take(&header)?;
                pages.next = Some(header);
            }
        }
        let n = buffer.len().min(self.part.len());
        buffer[..n].copy_from_slice(&self.part.split_to(n));
        self.position += n as u64;
        Ok(n)
    }
}

/// What a page's header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    is_dictionary: bool,
    unpacked: u64,
    /// Bytes in front that are not packed; `None` if nothing is.
    plain: Option<usize>,
}

impl Header {
    /// Source: `PageHeader` of parquet-format's parquet.thrift in thrift's compact protocol: field 1 is the type, field 2 the
    /// unpacked size, both required and i32, so each is the byte 0x15 and a zigzag number; a dictionary has the type 2.
    fn read(header: &[u8]) -> Option<Self> {
        let (kind, rest) = number(header.strip_prefix(&[0x15])?)?;
        let (size, rest) = number(rest.strip_prefix(&[0x15])?)?;
        let plain = if kind == 6 { Self::levels(rest).unwrap_or(Some(0)) } else { Some(0) };
        // A negative size is the crate's to refuse.
        size.is_multiple_of(2).then_some(Self { is_dictionary: kind == 4, unpacked: size / 2, plain })
    }

    /// Bytes of levels in front of a page of version 2, whose type is 3, and whose own header is field 8 with the numbers 1 to 6, the
    /// last two of them the bytes of both kinds of levels, and the truth 7, that it is packed.
    fn levels(rest: &[u8]) -> Option<Option<usize>> {
        let (_, mut rest) = number(rest.strip_prefix(&[0x15])?)?;
        if let Some(after) = rest.strip_prefix(&[0x15]) {
            rest = number(after)?.1;
        }
        rest = rest.strip_prefix(&[0x5c]).or_else(|| rest.strip_prefix(&[0x4c]))?;
        let mut numbers = [0; 6];
        for value in &mut numbers {
            (*value, rest) = number(rest.strip_prefix(&[0x15])?)?;
        }
        let is_packed = rest.first() != Some(&0x12);
        Some(is_packed.then_some(numbers[4].saturating_add(numbers[5]) as usize / 2))
    }

    /// What of a page is packed.
    fn packed<'a>(&self, page: &'a [u8]) -> Option<&'a [u8]> {
        page.get(self.plain?..)
    }
}

/// A number of seven bits a byte, the lowest first, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is the header of a page of images of so many bytes, of this type.
    fn claiming(folder: &std::path::Path, kind: u64, bytes: u64) -> Source {
        let mut header = vec![0x15];
        for (value, end) in [(kind * 2, 0x15), (bytes * 2, 0x15), (8, 0x00)] {
            let mut left = value;
            while left >= 0x80 {
                header.push(left as u8 | 0x80);
                left >>= 7;
            }
            header.extend([left as u8, end]);
        }
        let path = folder.join(format!("{kind}-{bytes}"));
        std::fs::write(&path, header).unwrap();
        let blob = tastemaker_store::tree::LocalFile::open(path).unwrap();
        Source::new(Arc::new(blob), Some((u64::MAX, Compression::UNCOMPRESSED)))
    }

    #[test]
    fn pages_that_are_read_at_the_same_time_unpack_to_no_more_than_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let read = |source: &Source| source.get_read(0).unwrap().read(&mut [0]);
        let all = PAGES.bytes();
        let first = claiming(folder.path(), 0, all / 2 + 1);
        let second = claiming(folder.path(), 0, all / 2);
        read(&first).unwrap();
        read(&first).unwrap();
        let problem = read(&second).unwrap_err().to_string();
        assert!(problem.contains("wanted at most 2147483648 bytes of pages together"), "{problem}");
        drop(first);
        read(&second).unwrap();
        // The dictionary of a column counts beside its data.
        let blob = claiming(folder.path(), 2, all / 2 + 1).blob;
        let dictionary = Source { blob, ..second };
        assert!(read(&dictionary).is_err());
        assert!(read(&claiming(folder.path(), 0, all + 1)).is_err());
    }

    #[test]
    fn levels_of_version_2_are_not_packed() {
        // Type 3, unpacked 100, packed 50, then field 8: 10 values, 0 nulls, 10 rows, plain, levels of 3 and 4 bytes.
        let own = [0x15, 20, 0x15, 0, 0x15, 20, 0x15, 0, 0x15, 6, 0x15, 8];
        let front = [0x15, 6, 0x15, 200, 1, 0x15, 100];
        for (middle, end, wanted) in [
            (&[0x5c][..], [0x11], Some(7)),
            (&[0x15, 2, 0x4c], [0x11], Some(7)),
            (&[0x5c], [0x12], None),
            (&[0x5c], [0x00], Some(7)),
        ] {
            let header = Header::read(&[&front[..], middle, &own, &end].concat()).unwrap();
            assert_eq!((header.unpacked, header.plain), (100, wanted));
        }
    }
}
