//! The visible list of layouts, and finding out which one a path is.

use std::path::{Path, PathBuf};

use tastemaker_store::StoreError;

use super::{read_folders, read_jsonl};
use crate::{DataError, PairSource};

/// A layout of pairs on disk.
pub struct Format {
    /// Its name in help and documentation.
    pub name: &'static str,
    /// What it looks like, to complete "wanted ...".
    pub marks: &'static str,
    /// Whether a path has those marks; looks at names only.
    pub detect: fn(&Path) -> bool,
    /// Opens a path that has them.
    pub open: fn(&Path) -> Result<Box<dyn PairSource>, DataError>,
}

/// Every layout we read, in the order they are tried.
pub static FORMATS: &[Format] = &[
    Format {
        name: "jsonl",
        marks: "a folder with metadata.jsonl (rows of image_0, image_1, prompt, prefer_0, prefer_1), or such a file",
        detect: |path| metadata_file(path).is_some(),
        open: |path| {
            let list = metadata_file(path).unwrap_or_else(|| path.to_path_buf());
            Ok(Box::new(read_jsonl(list)?))
        },
    },
    Format {
        name: "folders",
        marks: "a folder with w/ and l/ (the same image names in both, captions beside them in .txt)",
        detect: |path| path.join("w").is_dir() && path.join("l").is_dir(),
        open: |path| Ok(Box::new(read_folders(path)?)),
    },
];

/// Opens pairs in whichever layout the path has.
///
/// # Errors
/// [`StoreError::Missing`] if nothing is there, [`DataError::UnknownFormat`] naming the layouts we read, and
/// whatever the reader finds wrong.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn PairSource>, DataError> {
    let path = path.as_ref();
    if !path.exists() {
        let wanted = "a set of pairs".into();
        return Err(StoreError::Missing { path: path.to_path_buf(), wanted }.into());
    }
    match FORMATS.iter().find(|format| (format.detect)(path)) {
        Some(format) => (format.open)(path),
        None => Err(DataError::UnknownFormat {
            path: path.to_path_buf(),
            wanted: FORMATS.iter().map(|format| format.marks).collect::<Vec<_>>().join("; or "),
        }),
    }
}

fn metadata_file(path: &Path) -> Option<PathBuf> {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "jsonl") {
        return Some(path.to_path_buf());
    }
    Some(path.join("metadata.jsonl")).filter(|list| list.is_file())
}
