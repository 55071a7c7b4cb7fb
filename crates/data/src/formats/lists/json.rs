//! Lists of JSON objects: one a line, or all in an array.
//!
//! Sources: `invoke-ai/invoke-training`, whose preference sets are a folder of images and a `metadata.jsonl`; HPDv2, whose
//! rankings are arrays.

use serde_json::{Map, Value};
use tastemaker_store::StoreError;
use tastemaker_store::tree::Location;

use super::MAX_ROW_BYTES;
use super::items::{Item, Items};
use crate::DataError;
use crate::formats::OpenSettings;
use crate::formats::refusal::Refusal;
use crate::formats::table::{Cell, Detect, NamedRow, Row, TableReader};
use crate::set::PairSet;

/// Reads a list with one object a line; image paths are relative to the list's folder.
///
/// Ties, lines that are not UTF-8, not JSON or lack a column, and rows whose images are not there are skipped by name. Blank
/// lines are skipped. A [`PairId`](crate::PairId) is the row's number, counted from 0 without blank lines.
///
/// # Errors
/// [`StoreError`] if the list cannot be read; [`DataError::Columns`] if none of its rows
/// follows a convention; [`DataError::Empty`] if no pair is left.
pub fn read_jsonl(location: &Location, list: &str, settings: &OpenSettings) -> Result<PairSet, DataError> {
    read(location, list, settings, |items| items.line())
}

/// Reads a list that is one array of objects, as [`read_jsonl`] does.
///
/// # Errors
/// As [`read_jsonl`], and [`StoreError::Malformed`] for what is no array.
pub fn read_json(location: &Location, list: &str, settings: &OpenSettings) -> Result<PairSet, DataError> {
    read(location, list, settings, |items| items.element())
}

fn read(
    location: &Location,
    list: &str,
    settings: &OpenSettings,
    next: for<'a> fn(&'a mut Items<'_>) -> Result<Option<Item<'a>>, StoreError>,
) -> Result<PairSet, DataError> {
    let blob = location.tree().open(list)?;
    let mut items = Items::new(blob.as_ref());
    let mut table = TableReader::new(location, blob.place(), settings);
    table.table(list);
    let mut detect = Detect::new(settings, blob.place());
    while let Some(item) = next(&mut items)? {
        let object = match item {
            Item::Text(text, line) => parse(text).map_err(|problem| match line {
                Some(line) => format!("line {line} {problem}"),
                None => format!("it {problem}"),
            }),
            Item::Other(kind) => Err(format!("{kind}; wanted an object")),
            Item::TooLong => Err(format!("a row of more than {MAX_ROW_BYTES} bytes")),
        };
        detect.add(&mut table, object.map(Object).map_err(Refusal::bad_row))?;
    }
    detect.finish()?;
    table.finish(None)
}

/// An object as a row.
struct Object(Map<String, Value>);

impl Row for Object {
    fn cell(&self, column: &str) -> Cell<'_> {
        self.0.get(column).map_or(Cell::Null, cell)
    }
}

impl NamedRow for Object {
    fn columns(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn has(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }
}

/// A value as a cell.
pub fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(value) => value.as_f64().map_or(Cell::Other("a number out of range"), Cell::Number),
        Value::String(text) => Cell::Text(text.into()),
        Value::Array(values) => Cell::List(values.iter().map(cell).collect()),
        Value::Object(fields) => match fields.get("path") {
            // How the datasets package writes an image that is a file.
            Some(Value::String(path)) => Cell::Text(path.into()),
            _ => Cell::Other("an object"),
        },
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A row's object, or what is there instead.
///
/// # Errors
/// What was found, to follow what holds it, for a row that is skipped.
pub fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(text).map_err(|e| {
        format!("has a byte that is not UTF-8 at column {}; save it as UTF-8", e.valid_up_to() + 1)
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("is {}; wanted an object", kind(&other))),
        Err(e) => {
            // The parser sees one row and calls it line 1; only the column means something here.
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            Err(format!("is not valid JSON: {reason} at column {}", e.column()))
        }
    }
}
