//! Safetensors files damaged on purpose.
//!
//! Each function reads the sound file `source`, damages one thing, writes the result into `folder` under the same file
//! name, and returns its path. The first three are no safetensors files any more; the others still are, but do not fit
//! the network they came from. All need a file with at least two tensors.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Cuts the file in the middle of its data.
pub fn truncated(source: &Path, folder: &Path) -> PathBuf {
    let bytes = bytes_of(source);
    write(source, folder, &bytes[..bytes.len() - data_length(&bytes) / 2])
}

/// Claims a header that is longer than the file.
pub fn header_too_long(source: &Path, folder: &Path) -> PathBuf {
    let mut bytes = bytes_of(source);
    let claimed = bytes.len() as u64 + 1;
    bytes[..8].copy_from_slice(&claimed.to_le_bytes());
    write(source, folder, &bytes)
}

/// Lets the second tensor begin inside the first one.
pub fn overlapping(source: &Path, folder: &Path) -> PathBuf {
    with_header(source, folder, |header| {
        let shift = |value: &Value| json!(value.as_u64().expect("an offset") - 1);
        let entry = entries(header).nth(1).expect("a second tensor");
        entry["data_offsets"] =
            Value::Array(entry["data_offsets"].as_array().expect("offsets").iter().map(shift).collect());
    })
}

/// Declares the first 32-bit float tensor as 32-bit integers.
pub fn wrong_dtype(source: &Path, folder: &Path) -> PathBuf {
    with_header(source, folder, |header| {
        let entry = entries(header).find(|entry| entry["dtype"] == "F32").expect("an F32 tensor");
        entry["dtype"] = json!("I32");
    })
}

/// Declares the first tensor with one more dimension, of size 1.
pub fn wrong_shape(source: &Path, folder: &Path) -> PathBuf {
    with_header(source, folder, |header| {
        let entry = entries(header).next().expect("a first tensor");
        entry["shape"].as_array_mut().expect("a shape").push(json!(1));
    })
}

/// Gives the first tensor another name, so that one is missing and one is unexpected.
pub fn renamed(source: &Path, folder: &Path, name: &str) -> PathBuf {
    with_header(source, folder, |header| {
        let first = header.keys().find(|k| *k != METADATA).expect("a first tensor").clone();
        let entry = header.remove(&first).expect("a first tensor");
        header.insert(name.to_owned(), entry);
    })
}

const METADATA: &str = "__metadata__";

/// Tensor entries in the order of their data.
fn entries(header: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let mut entries: Vec<_> = header.iter_mut().filter(|(k, _)| *k != METADATA).map(|(_, v)| v).collect();
    entries.sort_by_key(|entry| entry["data_offsets"][0].as_u64());
    entries.into_iter()
}

fn with_header(source: &Path, folder: &Path, damage: impl FnOnce(&mut Map<String, Value>)) -> PathBuf {
    let bytes = bytes_of(source);
    let (header, data) = bytes[8..].split_at(bytes.len() - 8 - data_length(&bytes));
    let mut header: Map<String, Value> = serde_json::from_slice(header).expect("a sound header");
    damage(&mut header);
    let header = serde_json::to_vec(&header).expect("a header in JSON");
    write(source, folder, &[&(header.len() as u64).to_le_bytes(), &header[..], data].concat())
}

fn data_length(bytes: &[u8]) -> usize {
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    bytes.len() - 8 - usize::try_from(header).expect("a sound header")
}

fn bytes_of(source: &Path) -> Vec<u8> {
    std::fs::read(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()))
}

fn write(source: &Path, folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join(source.file_name().expect("a file name"));
    assert_ne!(path, source, "a damaged file must not replace its source");
    std::fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}
