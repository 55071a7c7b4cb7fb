//! Lists with commas between the columns, which the first line names.
//!
//! Sources: `modelscope/DiffSynth-Studio` (`metadata.csv`), `jacklishufan/diffusion-kto`.

use std::cell::Cell as Shared;

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use tastemaker_store::StoreError;
use tastemaker_store::tree::{BlobReader, Location};

use super::MAX_ROW_BYTES;
use crate::DataError;
use crate::formats::OpenSettings;
use crate::formats::metered::Metered;
use crate::formats::refusal::Refusal;
use crate::formats::table::{Cell, Layout, Row, TableReader};
use crate::set::PairSet;

/// Reads a list; image paths are relative to its folder. An empty cell is an empty text.
///
/// Rows of another length than the first line, or not UTF-8, are skipped by name, as are ties and rows whose images are not
/// there. A [`PairId`](crate::PairId) is the row's number, counted from 0 without the first line.
///
/// # Errors
/// [`StoreError`] if the list cannot be read or a row has no end; [`DataError::Columns`] if it follows no convention;
/// [`DataError::Empty`] if no pair is left.
pub fn read_csv(location: &Location, list: &str, settings: &OpenSettings) -> Result<PairSet, DataError> {
    let blob = location.tree().open(list)?;
    let left = Shared::new(0);
    let reader = BlobReader::new(blob.as_ref());
    let metered = Metered { reader, left: &left, endless: "a row without an end" };
    let mut reader = ReaderBuilder::new().flexible(true).has_headers(false).from_reader(metered);
    let read = |reader: &mut Reader<Metered<'_>>, record: &mut ByteRecord| {
        left.set(2 * MAX_ROW_BYTES);
        reader.read_byte_record(record).map_err(|error| {
            let wanted = format!("comma-separated rows of at most {MAX_ROW_BYTES} bytes");
            let found = error.to_string();
            match error.into_kind() {
                csv::ErrorKind::Io(error) => StoreError::within(error.into()).ok(),
                _ => None,
            }
            .unwrap_or_else(|| StoreError::malformed(blob.place(), found, wanted))
        })
    };
    let mut record = ByteRecord::new();
    read(&mut reader, &mut record)?;
    let mut columns = Vec::new();
    for name in &record {
        let name = std::str::from_utf8(name).map_err(|_| {
            StoreError::malformed(blob.place(), "names of columns that are not UTF-8", "text saved as UTF-8")
        })?;
        columns.push(name.trim_start_matches('\u{feff}').trim().to_owned());
    }
    let layout = Layout::of(&columns, settings, blob.place())?;
    let mut table = TableReader::new(location, blob.place(), settings);
    table.table(list);
    while read(&mut reader, &mut record)? {
        if record.len() != columns.len() {
            let (found, wanted) = (record.len(), columns.len());
            let mut detail = format!("{found} cells; wanted {wanted}, as in the first line");
            let (first, last) = (record.position().map_or(0, Position::line), reader.position().line());
            if last > first + 1 {
                detail += &format!("; it goes from line {first} to line {}: is a quote open?", last - 1);
            }
            table.refuse(Refusal::bad_row(detail))?;
            continue;
        }
        table.row(&layout, &Record { columns: &columns, record: &record })?;
    }
    table.finish(None)
}

struct Record<'a> {
    columns: &'a [String],
    record: &'a ByteRecord,
}

impl Row for Record<'_> {
    fn cell(&self, column: &str) -> Cell<'_> {
        let at = self.columns.iter().position(|name| name == column);
        match at.and_then(|at| self.record.get(at)).map(std::str::from_utf8) {
            None => Cell::Null,
            Some(Ok(text)) => Cell::Text(text.into()),
            Some(Err(_)) => Cell::Other("bytes that are not UTF-8"),
        }
    }
}
