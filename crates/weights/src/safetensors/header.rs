//! The JSON header: parsed strictly, because every offset in it is a stranger's word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo as Entry;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use tastemaker_store::foreign::Foreign;
use tastemaker_store::{StoreError, regular};

/// The longest header accepted; the reference implementation has the same bound.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Free-form text pairs a header may carry (`__metadata__`), in key order.
pub type Metadata = BTreeMap<String, String>;

const METADATA_KEY: &str = "__metadata__";

/// Where one tensor lies and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Its name, unique in the file.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the end of the header.
    pub range: Range<usize>,
}

/// A checked header: names are unique, offsets tile the data exactly, sizes follow from shape and type.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The tensors in name order.
    pub tensors: Vec<TensorInfo>,
    /// The free-form text.
    pub metadata: Metadata,
    /// Where the data begins in the file, in bytes.
    pub data_start: usize,
}

impl Header {
    /// Reads and checks the header alone; the weights stay on disk.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`], or [`StoreError::Malformed`] for anything the format
    /// forbids.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let fail = |e| StoreError::io("read", path, e);
        let mut file = regular::open(path)?;
        let file_len = file.metadata().map_err(fail)?.len();
        let mut start = Vec::with_capacity(START);
        file.by_ref().take(START as u64).read_to_end(&mut start).map_err(fail)?;
        let header_len = checked_length(path, &start, file_len)?;
        let mut json = start.split_off(8);
        json.truncate(header_len);
        file.take((header_len - json.len()) as u64).read_to_end(&mut json).map_err(fail)?;
        parse(path, &json, file_len)
    }

    /// Reads and checks the header of a file whose bytes are all at hand; `path` is for errors.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, StoreError> {
        let start = &file[..file.len().min(START)];
        let header_len = checked_length(path, start, file.len() as u64)?;
        parse(path, &file[8..8 + header_len], file.len() as u64)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .ok()
            .map(|at| &self.tensors[at])
    }
}

/// Bytes at the start of a file that tell what it is.
const START: usize = 64;

/// The length of the header, from the `start` of a file.
fn checked_length(path: &Path, start: &[u8], file_len: u64) -> Result<usize, StoreError> {
    // No header begins otherwise than with its length and a brace.
    let foreign = Foreign::of(start).filter(|_| start.get(8) != Some(&b'{'));
    if let Some(foreign) = foreign {
        return Err(foreign.instead_of(path, "a safetensors file"));
    }
    let Some(length) = start.first_chunk().copied() else {
        return Err(StoreError::malformed(
            path,
            format!("{file_len} bytes"),
            "at least the 8 bytes of a header length",
        ));
    };
    let n = u64::from_le_bytes(length);
    if n > MAX_HEADER_BYTES {
        return Err(StoreError::malformed(
            path,
            format!("a header of {n} bytes"),
            format!("a safetensors file, whose header has at most {MAX_HEADER_BYTES} bytes"),
        ));
    }
    if n > file_len.saturating_sub(8) {
        return Err(StoreError::malformed(
            path,
            format!("a header of {n} bytes in a file of {file_len}"),
            "the whole header; the file is truncated, fetch it again",
        ));
    }
    // At most 100 MB, so it fits any usize.
    Ok(n as usize)
}

fn parse(path: &Path, json: &[u8], file_len: u64) -> Result<Header, StoreError> {
    let text = std::str::from_utf8(json).map_err(|e| {
        let byte = 8 + e.valid_up_to();
        StoreError::malformed(path, format!("a byte that is not UTF-8 at offset {byte}"), "a header in UTF-8")
    })?;
    let raw: RawHeader = serde_json::from_str(text).map_err(|e| {
        StoreError::malformed(path, format!("the header {e}"), "a JSON object of tensor entries")
    })?;
    let data_start = 8 + json.len();
    let data_len = usize::try_from(file_len).unwrap_or(usize::MAX) - data_start;

    let mut tensors = Vec::with_capacity(raw.tensors.len());
    for (name, entry) in raw.tensors {
        let (start, end) = entry.data_offsets;
        let wanted = byte_len(&entry.shape, entry.dtype).ok_or_else(|| {
            StoreError::malformed(
                path,
                format!("tensor `{name}` of type {} and shape {:?}", entry.dtype, entry.shape),
                "a size in whole bytes that fits this machine",
            )
        })?;
        if end < start || end - start != wanted {
            return Err(StoreError::malformed(
                path,
                format!("tensor `{name}` at bytes {start}..{end}"),
                format!("{wanted} bytes for type {} and shape {:?}", entry.dtype, entry.shape),
            ));
        }
        if end > data_len {
            return Err(StoreError::malformed(
                path,
                format!("tensor `{name}` ending at byte {end} of {data_len} bytes of data"),
                "every tensor inside the file; if it is truncated, fetch it again",
            ));
        }
        tensors.push(TensorInfo { name, dtype: entry.dtype, shape: entry.shape, range: start..end });
    }
    check_tiling(path, &mut tensors, data_len)?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Header { tensors, metadata: raw.metadata, data_start })
}

/// The bytes of a tensor, or `None` if that overflows or is not whole.
pub(super) fn byte_len(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let n = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
    let bits = n.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Tensors must follow one another without overlap or gap, and fill the file: hidden bytes have no honest
/// use.
fn check_tiling(path: &Path, tensors: &mut [TensorInfo], data_len: usize) -> Result<(), StoreError> {
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut end = 0;
    for TensorInfo { name, range, .. } in tensors {
        if range.start != end {
            let how =
                if range.start < end { "overlapping the one before" } else { "leaving a hole before it" };
            return Err(StoreError::malformed(
                path,
                format!("tensor `{name}` starting at byte {}, {how}", range.start),
                format!("it to start at byte {end}"),
            ));
        }
        end = range.end;
    }
    if end != data_len {
        return Err(StoreError::malformed(
            path,
            format!("{data_len} bytes of data, of which the tensors fill {end}"),
            "no bytes after the last tensor",
        ));
    }
    Ok(())
}

struct RawHeader {
    tensors: Vec<(String, Entry)>,
    metadata: Metadata,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut seen = BTreeSet::new();
                let mut raw = RawHeader { tensors: Vec::new(), metadata: Metadata::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("names `{name}` twice")));
                    }
                    if name == METADATA_KEY {
                        raw.metadata = map.next_value()?;
                    } else {
                        let entry = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("has a bad entry `{name}`: {e}")))?;
                        raw.tensors.push((name, entry));
                    }
                }
                Ok(raw)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
