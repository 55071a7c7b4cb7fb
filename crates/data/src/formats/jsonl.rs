//! A list of pairs, one JSON object a line.
//!
//! Source: `invoke-ai/invoke-training`, whose preference sets are a folder of images and such a
//! `metadata.jsonl`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use tastemaker_store::StoreError;

use super::files::{FilePair, FilePairs};
use crate::{DataError, PairId};

/// One line; columns beyond these are none of our business.
#[derive(Deserialize)]
struct Row {
    image_0: String,
    image_1: String,
    prompt: String,
    prefer_0: bool,
    prefer_1: bool,
}

/// Reads a list of pairs; image paths are relative to the list's folder.
///
/// Rows where both or neither image is preferred are ties: left out, and counted in
/// [`n_ties`](crate::PairSource::n_ties). Blank lines are skipped. A [`PairId`] is the row's number, counted
/// from 0 with ties and without blank lines.
///
/// # Errors
/// [`StoreError`] if the list cannot be read; [`DataError::Row`] for a line that is not UTF-8, not JSON or
/// lacks a column; [`DataError::MissingImages`] with all of them; [`DataError::Empty`] if no pair is left.
pub fn read_jsonl(list: impl AsRef<Path>) -> Result<FilePairs, DataError> {
    let list = list.as_ref();
    let folder = list.parent().unwrap_or(Path::new(""));
    let bytes = fs::read(list).map_err(|e| StoreError::io("read", list, e))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);

    let lines =
        text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let (mut pairs, mut n_ties) = (Vec::new(), 0);
    for (id, (line, bytes)) in lines.enumerate() {
        let row = parse(list, line + 1, bytes)?;
        if row.prefer_0 == row.prefer_1 {
            n_ties += 1;
            continue;
        }
        let (winner, loser) =
            if row.prefer_0 { (&row.image_0, &row.image_1) } else { (&row.image_1, &row.image_0) };
        pairs.push(FilePair {
            id: PairId(id as u64),
            place: format!("row {}", line + 1),
            winner: folder.join(winner),
            loser: folder.join(loser),
            caption: row.prompt,
        });
    }
    FilePairs::new(list, folder, pairs, n_ties)
}

fn parse(list: &Path, row: usize, line: &[u8]) -> Result<Row, DataError> {
    let complain = |found: String, wanted: &str| DataError::Row {
        path: list.to_path_buf(),
        row,
        found,
        wanted: wanted.into(),
    };
    let text = std::str::from_utf8(line).map_err(|e| {
        complain(format!("a byte that is not UTF-8 at column {}", e.valid_up_to() + 1), "text saved as UTF-8")
    })?;
    serde_json::from_str(text).map_err(|e| {
        // The parser sees one line and calls it line 1; only the column means something here.
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        complain(
            format!("{reason} at column {}", e.column()),
            "an object with image_0, image_1, prompt (text), prefer_0, prefer_1 (true or false)",
        )
    })
}
