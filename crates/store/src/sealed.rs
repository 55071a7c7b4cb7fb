//! JSON files that end with the checksum of everything before it, so that a flipped bit anywhere is found.
//!
//! The last field of the object is `checksum`, the SHA-256 of the file's bytes up to where the field begins.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::checksum::sha256_bytes;
use crate::{StoreError, atomic, json};

const FIELD: &str = "checksum";

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// Its fields, without the checksum.
    pub value: Value,
    /// Whether a checksum was there and held; files of earlier versions have none.
    pub is_sealed: bool,
}

/// Writes an object as indented JSON with its checksum, atomically.
///
/// # Errors
/// As [`json::write`]; [`StoreError::Malformed`] if the value is no object with fields.
pub fn write(path: impl AsRef<Path>, value: &impl Serialize) -> Result<(), StoreError> {
    let path = path.as_ref();
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| StoreError::Json { path: path.to_path_buf(), source })?;
    let body = text.strip_suffix("\n}").filter(|body| body.len() > 1);
    let body = body.ok_or_else(|| StoreError::malformed(path, "no fields", "an object with fields"))?;
    atomic::write(path, |out| write!(out, "{body}{}", ending(body)))
}

/// Reads an object and compares its checksum, if it has one.
///
/// # Errors
/// As [`json::read`]; [`StoreError::Malformed`] if the checksum is another one.
pub fn read(path: impl AsRef<Path>) -> Result<Sealed, StoreError> {
    let path = path.as_ref();
    let text = json::read_text(path)?;
    let mut fields: Map<String, Value> = json::parse(path, &text)?;
    let is_sealed = fields.remove(FIELD).is_some();
    if is_sealed {
        let holds = text.len().checked_sub(ending("").len()).and_then(|length| text.split_at_checked(length));
        if holds.is_none_or(|(body, end)| end != ending(body)) {
            let wanted = "the file as it was written";
            return Err(StoreError::malformed(path, "other bytes than its checksum is of", wanted));
        }
    }
    Ok(Sealed { value: Value::Object(fields), is_sealed })
}

/// What follows `body`: always of one length.
fn ending(body: &str) -> String {
    format!(",\n  \"{FIELD}\": \"{}\"\n}}\n", sha256_bytes(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn a_flipped_bit_anywhere_in_the_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        let value = json!({"format": 3, "note": "ä, \"b\"", "parts": [{"n": 0.1}, {}], "z": {}});
        write(&path, &value).unwrap();
        assert_eq!(read(&path).unwrap(), Sealed { value, is_sealed: true });
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                // The name of the field itself is left to whoever knows which formats have it.
                let found = read(&path);
                assert!(found.is_err() || !found.unwrap().is_sealed, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_file_without_a_checksum_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        fs::write(&path, "{\"format\": 2}\n").unwrap();
        assert_eq!(read(&path).unwrap(), Sealed { value: json!({"format": 2}), is_sealed: false });
    }

    #[test]
    fn what_has_no_fields_cannot_be_sealed() {
        let folder = tempfile::tempdir().unwrap();
        for value in [json!({}), json!([1]), json!(1)] {
            assert!(write(folder.path().join("x"), &value).is_err(), "{value}");
        }
    }
}
