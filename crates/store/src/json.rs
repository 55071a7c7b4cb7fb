//! JSON and plain text files, with the path in every error.

use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::foreign::Foreign;
use crate::{StoreError, atomic, regular};

/// The longest text file that is read, in bytes: configurations and tokenizers are far shorter, and one that never ends, such as a
/// device or a pipe, is given up there.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Reads a whole UTF-8 text file of at most [`MAX_TEXT_BYTES`]; a leading byte-order mark is not part of the text.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Io`], [`StoreError::NotUtf8`], or [`StoreError::Malformed`] for a longer one.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, StoreError> {
    read_text_within(path, MAX_TEXT_BYTES)
}

/// [`read_text`] of a file of at most `limit` bytes.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_within(path: impl AsRef<Path>, limit: u64) -> Result<String, StoreError> {
    let path = path.as_ref();
    decoded(path, bytes_within(path, limit)?)
}

/// Reads a text file as [`read_text`] does, also where some of its bytes are not UTF-8: U+FFFD then stands for them, and the second
/// value is true.
///
/// # Errors
/// As [`read_text`]; [`StoreError::NotUtf8`] only for what is no text in an encoding of bytes.
pub fn read_text_damaged(path: impl AsRef<Path>) -> Result<(String, bool), StoreError> {
    let path = path.as_ref();
    let bytes = bytes_within(path, MAX_TEXT_BYTES)?;
    if std::str::from_utf8(&bytes).is_err() && !bytes.contains(&0) {
        let text = String::from_utf8_lossy(&bytes);
        return Ok((without_mark(&text).to_owned(), true));
    }
    Ok((decoded(path, bytes)?, false))
}

fn bytes_within(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let read = regular::open_text(path)?.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| StoreError::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::malformed(path, "a longer text", format!("at most {limit} bytes")));
    }
    Ok(bytes)
}

fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String, StoreError> {
    let text = String::from_utf8(bytes).map_err(|e| StoreError::NotUtf8 {
        path: path.to_path_buf(),
        offset: e.utf8_error().valid_up_to(),
    })?;
    Ok(match without_mark(&text) {
        rest if rest.len() < text.len() => rest.to_owned(),
        _ => text,
    })
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a JSON file into a typed value.
///
/// # Errors
/// As [`read_text`] and [`parse`].
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, StoreError> {
    let path = path.as_ref();
    parse(path, &read_text(path)?)
}

/// The value of a text that was read from `path`.
///
/// # Errors
/// [`StoreError::Json`] with line and column; [`StoreError::Malformed`] for what is no JSON at a glance: nothing, or a web page.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| {
        let start = text.trim_start();
        let is_other = start.is_empty() || start.starts_with('<') || start.starts_with("version https");
        match Foreign::of(start.as_bytes()).filter(|_| is_other) {
            Some(foreign) => StoreError::malformed(path, foreign.what, "JSON"),
            None => StoreError::Json { path: path.to_path_buf(), source },
        }
    })
}

/// Writes a value as indented JSON with a final newline, atomically.
///
/// # Errors
/// [`StoreError::Io`], or [`StoreError::Json`] if the value has no JSON form.
pub fn write(path: impl AsRef<Path>, value: &impl Serialize) -> Result<(), StoreError> {
    let path = path.as_ref();
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| StoreError::Json { path: path.to_path_buf(), source })?;
    atomic::write(path, |out| writeln!(out, "{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::fs;

    fn file(contents: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, contents).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_folder, path) = file(b"");
        let value = vec![("alpha".to_owned(), 0.25), ("beta".to_owned(), 5000.0)];
        write(&path, &value).unwrap();
        assert_eq!(read::<Vec<(String, f64)>>(&path).unwrap(), value);
    }

    #[test]
    fn a_truncated_file_is_an_error_with_its_line() {
        let (_folder, path) = file(b"{\n  \"layers\": [1, 2");
        let error = read::<serde_json::Value>(&path).unwrap_err();
        assert!(matches!(error, StoreError::Json { .. }));
        assert!(error.source().unwrap().to_string().contains("line 2"), "{error:?}");
    }

    #[test]
    fn what_is_no_json_at_a_glance_is_called_what_it_is() {
        for (contents, what) in [
            (&b""[..], "the file is empty"),
            (b" \n", "the file is empty"),
            (b"<!DOCTYPE html><html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        ] {
            let (_folder, path) = file(contents);
            let error = read::<serde_json::Value>(&path).unwrap_err().to_string();
            assert!(error.contains("config.json is malformed") && error.contains(what), "{error}");
        }
        let (_folder, path) = file(b"[1, 2");
        assert!(matches!(read::<serde_json::Value>(&path), Err(StoreError::Json { .. })));
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        let (_folder, path) = file(b"\"three\"");
        assert!(matches!(read::<u32>(&path), Err(StoreError::Json { .. })));
    }

    #[test]
    fn text_that_is_not_utf8_says_at_which_byte() {
        let (_folder, path) = file(b"caf\xe9");
        assert!(matches!(read_text(&path), Err(StoreError::NotUtf8 { offset: 3, .. })));
    }

    #[test]
    fn text_of_which_a_part_is_not_utf8_is_read_with_that_part_marked() {
        let damaged = |contents: &[u8]| {
            let (_folder, path) = file(contents);
            read_text_damaged(path).ok()
        };
        assert_eq!(damaged(b"a fox\ncaf\xe9\n"), Some(("a fox\ncaf\u{fffd}\n".into(), true)));
        assert_eq!(damaged("\u{feff}café".as_bytes()), Some(("café".into(), false)));
        // UTF-16 is another encoding throughout.
        assert_eq!(damaged(b"\xff\xfea\0 \0f\0"), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_file_without_an_end_is_given_up() {
        let error = read_text_within("/dev/zero", 1 << 20).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero is malformed: found a device; wanted a regular file");
        let (_folder, path) = file(b"four");
        assert_eq!(read_text_within(&path, 4).unwrap(), "four");
        let error = read_text_within(&path, 3).unwrap_err().to_string();
        assert!(error.ends_with("found a longer text; wanted at most 3 bytes"), "{error}");
    }

    #[test]
    fn a_missing_file_is_told_apart() {
        let (_folder, path) = file(b"");
        assert!(matches!(read_text(path.with_extension("yaml")), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn a_byte_order_mark_is_not_text() {
        let (_folder, path) = file(b"\xef\xbb\xbf7");
        assert_eq!(read::<u32>(&path).unwrap(), 7);
    }
}
