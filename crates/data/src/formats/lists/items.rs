//! Cutting a list into its rows, without holding more than one.

use std::io::{BufRead, BufReader, Read};

use tastemaker_store::StoreError;
use tastemaker_store::tree::{Blob, BlobReader};

use super::MAX_ROW_BYTES;

/// A row of a list.
pub enum Item<'a> {
    /// Its text, and in a list of lines its line, counted from 1.
    Text(&'a [u8], Option<u64>),
    /// It is no object but this.
    Other(&'static str),
    /// It is longer than is read.
    TooLong,
}

/// A list, row by row.
pub struct Items<'a> {
    blob: &'a dyn Blob,
    reader: BufReader<BlobReader<'a>>,
    row: Vec<u8>,
    started: bool,
    lines: u64,
}

impl<'a> Items<'a> {
    pub fn new(blob: &'a dyn Blob) -> Self {
        let reader = BufReader::with_capacity(64 << 10, BlobReader::new(blob));
        Self { blob, reader, row: Vec::new(), started: false, lines: 0 }
    }

    /// The next line that is not blank.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn line(&mut self) -> Result<Option<Item<'_>>, StoreError> {
        let (blob, limit) = (self.blob, MAX_ROW_BYTES as u64);
        let fail = |e| StoreError::io("read", blob.place(), e);
        loop {
            self.row.clear();
            if (&mut self.reader).take(limit).read_until(b'\n', &mut self.row).map_err(fail)? == 0 {
                return Ok(None);
            }
            self.lines += 1;
            if self.row.len() as u64 == limit && !self.row.ends_with(b"\n") {
                skip_line(&mut self.reader).map_err(fail)?;
                return Ok(Some(Item::TooLong));
            }
            if !trimmed(&self.row).is_empty() {
                return Ok(Some(Item::Text(trimmed(&self.row), Some(self.lines))));
            }
        }
    }

    /// The next element of an array. What is in it is not looked at, beyond where it ends.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] for what is no array or ends inside one, [`StoreError::Io`].
    pub fn element(&mut self) -> Result<Option<Item<'_>>, StoreError> {
        let malformed =
            |found: &str| StoreError::malformed(self.blob.place(), found, "a JSON array of objects");
        let mut first = self.byte()?;
        if !self.started {
            if first == Some(0xef) {
                (self.reader.read_exact(&mut [0; 2])).map_err(|_| malformed("bytes that are no text"))?;
                first = self.byte()?;
            }
            if first != Some(b'[') {
                return Err(malformed("something else at its start"));
            }
            self.started = true;
            first = self.byte()?;
        } else if first == Some(b',') {
            first = self.byte()?;
            if first == Some(b']') {
                return Err(malformed("a comma before its end"));
            }
        } else if first != Some(b']') {
            return Err(malformed(if first.is_none() {
                "an array without an end"
            } else {
                "no comma after a row"
            }));
        }
        match first {
            Some(b']') if self.byte()?.is_none() => return Ok(None),
            Some(b']') => return Err(malformed("something after the array")),
            Some(first) => {
                self.row.clear();
                self.row.push(first);
            }
            None => return Err(malformed("an array without an end")),
        }
        let first = self.row[0];
        let mut scan = Scan::default();
        scan.take(first);
        if first.is_ascii_alphanumeric() || first == b'-' {
            return self.scalar();
        }
        if !scan.is_open() {
            return Err(malformed("no value where a row should be"));
        }
        let mut too_long = false;
        while scan.is_open() {
            let part = self.reader.fill_buf().map_err(|e| StoreError::io("read", self.blob.place(), e))?;
            if part.is_empty() {
                return Err(StoreError::malformed(
                    self.blob.place(),
                    "an object without an end",
                    "a JSON array of objects",
                ));
            }
            let end = part.iter().position(|&byte| {
                scan.take(byte);
                !scan.is_open()
            });
            let n = end.map_or(part.len(), |end| end + 1);
            too_long |= self.row.len() + n > MAX_ROW_BYTES;
            if !too_long {
                self.row.extend_from_slice(&part[..n]);
            }
            self.reader.consume(n);
        }
        match first {
            b'[' => return Ok(Some(Item::Other("a list"))),
            b'"' => return Ok(Some(Item::Other("text"))),
            _ => {}
        }
        Ok(Some(if too_long { Item::TooLong } else { Item::Text(&self.row, None) }))
    }

    /// Passes over a number, or one of the words that JSON has.
    fn scalar(&mut self) -> Result<Option<Item<'_>>, StoreError> {
        loop {
            let part = self.reader.fill_buf().map_err(|e| StoreError::io("read", self.blob.place(), e))?;
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']');
            let n = part.iter().position(ends);
            let (n, ended) = (n.unwrap_or(part.len()), n.is_some() || part.is_empty());
            self.reader.consume(n);
            if ended {
                let is_word = self.row[0].is_ascii_alphabetic();
                return Ok(Some(Item::Other(if is_word { "null, true or false" } else { "a number" })));
            }
        }
    }

    /// The next byte that is no space.
    fn byte(&mut self) -> Result<Option<u8>, StoreError> {
        loop {
            let part = self.reader.fill_buf().map_err(|e| StoreError::io("read", self.blob.place(), e))?;
            let Some(&byte) = part.first() else { return Ok(None) };
            self.reader.consume(1);
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
        }
    }
}

/// Where in a value the reading is.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Takes a byte.
    fn take(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether the value goes on.
    fn is_open(&self) -> bool {
        self.in_text || self.depth > 0
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii()
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let part = reader.fill_buf()?;
        let (n, ended) = match part.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (part.len(), part.is_empty()),
        };
        reader.consume(n);
        if ended {
            return Ok(());
        }
    }
}
