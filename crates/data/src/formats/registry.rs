//! The visible list of layouts, and finding out which one a path is.

use std::path::Path;

use tastemaker_math::nearest::nearest;
use tastemaker_store::tree::{Entry, Location};

use super::OpenSettings;
use super::folders::read_folders;
use super::found::{found, has_sides};
use super::images::{has_caption, read_images};
use super::lists::{read_csv, read_json, read_jsonl};
use super::one_trainer::{is_rejected, read_one_trainer};
use super::parquet::{is_shard, read_parquet};
use super::webdataset::{is_tar, read_webdataset};
use crate::DataError;
use crate::set::PairSet;

/// A layout of pairs on disk.
pub struct Format {
    /// Its name in help, settings and documentation.
    pub name: &'static str,
    /// What it looks like, to complete "wanted ...".
    pub marks: &'static str,
    /// Whether files have those marks, by their names alone.
    pub detect: fn(&[Entry]) -> bool,
    /// Opens files that have them.
    pub open: fn(&Location, &[Entry], &OpenSettings) -> Result<PairSet, DataError>,
}

/// Every layout we read, in the order they are tried.
pub static FORMATS: &[Format] = &[
    Format {
        name: "jsonl",
        marks: "a folder with metadata.jsonl (a row a line), or such a file",
        detect: |entries| list(entries, ".jsonl").is_some(),
        open: |location, entries, settings| {
            read_jsonl(location, named(location, entries, ".jsonl")?, settings)
        },
    },
    Format {
        name: "parquet",
        marks: "a folder with parquet files (at its top or below data/), or such files",
        detect: |entries| entries.iter().any(|entry| is_shard(entry, entries.len() == 1)),
        open: read_parquet,
    },
    Format {
        name: "webdataset",
        marks: "a folder with tar files (images and texts that share a name), or such files",
        detect: |entries| entries.iter().any(|entry| is_tar(entry, entries.len() == 1)),
        open: read_webdataset,
    },
    Format {
        name: "folders",
        marks: "a folder with w/ and l/ (the same image names in both, captions beside them in .txt or .caption)",
        detect: |entries| ["w/", "l/"].iter().all(|side| entries.iter().any(|e| e.path.starts_with(side))),
        open: |location, entries, _| read_folders(location, entries),
    },
    Format {
        name: "onetrainer",
        marks: "a folder with name.png, name-rejectedlabel.png and name.txt",
        detect: |entries| entries.iter().any(is_rejected),
        open: |location, entries, _| read_one_trainer(location, entries),
    },
    Format {
        name: "json",
        marks: "a folder with metadata.json (an array of rows, or of rankings), or such a file",
        detect: |entries| list(entries, ".json").is_some(),
        open: |location, entries, settings| read_json(location, named(location, entries, ".json")?, settings),
    },
    Format {
        name: "csv",
        marks: "a folder with metadata.csv, or such a file",
        detect: |entries| list(entries, ".csv").is_some(),
        open: |location, entries, settings| read_csv(location, named(location, entries, ".csv")?, settings),
    },
    Format {
        name: "images",
        marks: "for the methods sft and kto, a folder of images that people like, captions beside them in .txt or .caption",
        detect: |entries| has_caption(entries) && !has_sides(entries),
        open: read_images,
    },
];

/// Opens pairs in whichever layout the path has.
///
/// # Errors
/// [`StoreError::Missing`](tastemaker_store::StoreError::Missing) if nothing is there, [`DataError::UnknownFormat`] naming
/// the layouts we read, and whatever the reader finds wrong.
pub fn open(path: impl AsRef<Path>) -> Result<PairSet, DataError> {
    open_at(&Location::local(path)?)
}

/// [`open`] for pairs that may be elsewhere.
///
/// # Errors
/// As [`open`].
pub fn open_at(location: &Location) -> Result<PairSet, DataError> {
    open_with(location, &OpenSettings::default())
}

/// [`open_at`] with a layout and columns that the user names.
///
/// # Errors
/// As [`open`], and [`DataError::NoSuchFormat`], [`DataError::Columns`].
pub fn open_with(location: &Location, settings: &OpenSettings) -> Result<PairSet, DataError> {
    let entries = location.entries()?;
    let format = match &settings.format {
        Some(name) => Some(FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
            let names = || FORMATS.iter().map(|format| format.name);
            DataError::NoSuchFormat {
                name: name.clone(),
                nearest: nearest(name, names()).map(str::to_owned),
                known: names().collect::<Vec<_>>().join(", "),
            }
        })?),
        None => FORMATS.iter().find(|format| (format.detect)(&entries)),
    };
    match format {
        Some(format) => (format.open)(location, &entries, settings),
        None => Err(unknown(location, &entries, FORMATS)),
    }
}

fn unknown(location: &Location, entries: &[Entry], formats: &[Format]) -> DataError {
    DataError::UnknownFormat {
        path: location.typed().to_path_buf(),
        found: found(location, entries),
        wanted: formats.iter().map(|format| format.marks).collect::<Vec<_>>().join("; or "),
    }
}

/// The list among files: the only one, or the one called `metadata`.
fn list<'a>(entries: &'a [Entry], extension: &str) -> Option<&'a str> {
    let path = match entries {
        [only] => &only.path,
        _ => &entries.iter().find(|entry| entry.path.strip_suffix(extension) == Some("metadata"))?.path,
    };
    path.ends_with(extension).then_some(path.as_str())
}

/// The list among files for whoever asked for this format by name: it may be called anything that it alone is.
fn named<'a>(location: &Location, entries: &'a [Entry], extension: &str) -> Result<&'a str, DataError> {
    let mut lists = entries.iter().filter(|entry| entry.path.ends_with(extension));
    let only = match (list(entries, extension), lists.next(), lists.next()) {
        (Some(list), ..) => Some(list),
        (None, Some(entry), None) => Some(entry.path.as_str()),
        _ if location.names_files() => entries.first().map(|entry| entry.path.as_str()),
        _ => None,
    };
    let format = FORMATS.iter().position(|format| extension.strip_prefix('.') == Some(format.name));
    only.ok_or_else(|| unknown(location, entries, format.map_or(FORMATS, |at| &FORMATS[at..=at])))
}
