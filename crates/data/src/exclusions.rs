//! Lists of rows that are not to be used: made by `tastemaker data check --fix`, applied when training opens the set.
//!
//! One JSON object a line. The first says which set the list is for, every other names a row.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tastemaker_store::checksum::hex;
use tastemaker_store::{StoreError, atomic, regular};

use crate::set::PairSet;
use crate::{DataError, PairId, PairSource};

/// Version of lists that only exclude.
pub const EXCLUSIONS_FORMAT: u32 = 1;

/// Version of lists that also correct, which is read too. Of several lines about a row the last one counts.
pub const CORRECTIONS_FORMAT: u32 = 2;

/// The longest list, some ten million rows.
const MAX_BYTES: u64 = 1 << 30;

/// The longest line.
const MAX_LINE_BYTES: u64 = 64 << 10;

const HEADER: &str = "an object with exclusions_format, fingerprint and set";
const ROW: &str = "an object with row, a number from 0";

#[derive(Serialize, Deserialize)]
struct Header {
    exclusions_format: u32,
    fingerprint: String,
    set: String,
    /// SHA-256 of all lines after this one; lists of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows_sha256: Option<String>,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is not used.
    #[default]
    Exclude,
    /// It is used, whatever an earlier line says.
    Keep,
    /// Its loser is the winner.
    Swap,
    /// Neither image is better.
    Tie,
    /// Nothing is said about it any more.
    Open,
}

/// What somebody says about a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// What becomes of it.
    #[serde(default, rename = "do")]
    pub action: Action,
    /// Its caption, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    row: PairId,
    #[serde(flatten)]
    correction: Correction,
}

/// A row as [`write()`] writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRow {
    #[serde(rename = "row")]
    _row: PairId,
    #[serde(rename = "place")]
    _place: String,
    #[serde(rename = "check")]
    _check: String,
}

/// Writes a list of rows, and by which check each is listed, for a set that the user called `name`.
///
/// # Errors
/// [`StoreError`] if it cannot be written.
pub fn write(
    path: &Path,
    set: &PairSet,
    name: &Path,
    rows: &BTreeMap<PairId, impl Serialize>,
) -> Result<(), DataError> {
    let lines = || {
        rows.iter()
            .map(|(id, check)| format!("{}\n", json!({ "row": id, "place": set.place(*id), "check": check })))
    };
    let mut hash = Sha256::new();
    lines().for_each(|line| hash.update(line));
    let header = Header {
        exclusions_format: EXCLUSIONS_FORMAT,
        fingerprint: hex(&set.opened_fingerprint()),
        set: name.display().to_string(),
        rows_sha256: Some(hex(&hash.finalize())),
    };
    Ok(atomic::write(path, |out| {
        writeln!(out, "{}", json!(header))?;
        lines().try_for_each(|line| out.write_all(line.as_bytes()))
    })?)
}

/// Whether somebody changed a list since [`write()`] made it, or it is something else. In a list of an earlier version, which
/// cannot show that a line is gone, only other lines are found.
///
/// # Errors
/// [`StoreError`] if it cannot be read.
pub fn is_edited(path: &Path) -> Result<bool, DataError> {
    let mut lines = Lines::open(path)?;
    let Ok(Some(header)) = lines.next::<Header>(HEADER) else { return Ok(true) };
    let Some(wanted) = header.rows_sha256 else {
        loop {
            match lines.next::<WrittenRow>(ROW) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(DataError::Store(error)) => return Err(error.into()),
                Err(_) => return Ok(true),
            }
        }
    };
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match lines.reader.read(&mut bytes).map_err(|e| StoreError::io("read", path, e))? {
            0 => return Ok(hex(&hash.finalize()) != wanted),
            n => hash.update(&bytes[..n]),
        }
    }
}

/// The first line of a list of corrections for a set that the user calls `name`.
pub fn corrections_header(set: &PairSet, name: &Path) -> String {
    let header = Header {
        exclusions_format: CORRECTIONS_FORMAT,
        fingerprint: hex(&set.opened_fingerprint()),
        set: name.display().to_string(),
        rows_sha256: None,
    };
    json!(header).to_string()
}

/// A line of a list of corrections.
pub fn correction_line(set: &PairSet, id: PairId, correction: &Correction) -> String {
    let mut line = json!({ "row": id, "place": set.place(id), "do": correction.action });
    for (name, text) in [("caption", &correction.caption), ("note", &correction.note)] {
        if let Some(text) = text {
            line[name] = text.as_str().into();
        }
    }
    line.to_string()
}

/// What a list says about the rows of a set that was just opened.
///
/// # Errors
/// [`DataError::OtherSet`] if the list was made for a set with another fingerprint, [`DataError::Exclusions`] for a line that
/// does not say what it must, [`StoreError`] if the list cannot be read.
pub fn read(path: &Path, set: &PairSet) -> Result<BTreeMap<PairId, Correction>, DataError> {
    let mut lines = Lines::open(path)?;
    let Some(header) = lines.next::<Header>(HEADER)? else {
        return Err(lines.wrong("nothing".into(), HEADER));
    };
    if !(EXCLUSIONS_FORMAT..=CORRECTIONS_FORMAT).contains(&header.exclusions_format) {
        let problem = format!("of format {}", header.exclusions_format);
        return Err(lines.wrong(problem, "format 1 or 2; a newer version of this program may read it"));
    }
    let found = hex(&set.fingerprint());
    if header.fingerprint != found {
        let (path, set) = (path.to_path_buf(), set.path().to_path_buf());
        return Err(DataError::OtherSet { path, set, listed: header.fingerprint, found });
    }
    let mut corrections = BTreeMap::new();
    while let Some(Row { row, correction }) = lines.next(ROW)? {
        match correction.action {
            Action::Open => corrections.remove(&row),
            _ => corrections.insert(row, correction),
        };
    }
    Ok(corrections)
}

/// Does to a set that was just opened what a list says: excludes rows, and corrects others.
///
/// # Errors
/// As [`read`], and [`DataError::Empty`] if no pair is left.
pub fn apply(path: &Path, set: &mut PairSet) -> Result<(), DataError> {
    let corrections = read(path, set)?;
    set.correct(&corrections, &format!("listed in {}", path.display()))
}

struct Lines<'a> {
    reader: BufReader<File>,
    path: &'a Path,
    line: usize,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let fail = |e| StoreError::io("read", path, e);
        let file = regular::open_text(path)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > MAX_BYTES {
            let found = format!("{size} bytes");
            return Err(StoreError::malformed(path, found, format!("at most {MAX_BYTES}")).into());
        }
        Ok(Self { reader: BufReader::new(file), path, line: 0 })
    }

    /// The next line that is not blank.
    fn next<T: serde::de::DeserializeOwned>(&mut self, wanted: &'static str) -> Result<Option<T>, DataError> {
        loop {
            let mut line = Vec::new();
            let n = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            let n = n.map_err(|e| StoreError::io("read", self.path, e))?;
            if n == 0 {
                return Ok(None);
            }
            self.line += 1;
            if n as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
                return Err(self.wrong(format!("longer than {MAX_LINE_BYTES} bytes"), wanted));
            }
            if !line.trim_ascii().is_empty() {
                let parsed = serde_json::from_slice(&line);
                return parsed.map(Some).map_err(|_| self.wrong("something else".into(), wanted));
            }
        }
    }

    fn wrong(&self, problem: String, wanted: &'static str) -> DataError {
        DataError::Exclusions { path: self.path.to_path_buf(), line: self.line.max(1), problem, wanted }
    }
}
