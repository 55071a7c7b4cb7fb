//! The folder of results.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_store::checksum::hex;
use tastemaker_store::{StoreError, atomic};

use super::page::page;
use super::pass::{Event, check};
use super::settings::Settings;
use super::summary::Summary;
use super::worst::cases;
use crate::set::PairSet;
use crate::{DataError, PairSource, exclusions};

/// Version of `check.jsonl`.
pub const CHECK_FORMAT: u32 = 2;

const FINDINGS: &str = "check.jsonl";

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// All findings, one a line.
    pub findings: PathBuf,
    /// The page.
    pub page: PathBuf,
    /// The list of exclusions, if rows were to be excluded.
    pub exclusions: Option<PathBuf>,
}

/// Checks a set, which the user called `name`, into a folder: `check.jsonl`, `index.html` and, where [`Settings::exclude`] names checks, `excluded.jsonl`.
///
/// `on_pair` gets how many pairs have been checked, and of how many.
///
/// # Errors
/// [`DataError::Output`] for a folder that holds something else or belongs to the set; as [`check`](super::check); what
/// cannot be written.
pub fn write(
    set: &PairSet,
    name: &Path,
    settings: &Settings,
    folder: &Path,
    on_pair: &mut dyn FnMut(usize, usize),
) -> Result<(Summary, Written), DataError> {
    check_folder(folder, name)?;
    atomic::create_folder(folder)?;
    let path = folder.join(FINDINGS);
    let mut outcome = None;
    let written = atomic::write(&path, |out| {
        writeln!(out, "{}", header(set, name, settings))?;
        let checked = check(set, settings, &mut |event| {
            match event {
                Event::Finding(finding) => serde_json::to_string(finding)
                    .map_err(io::Error::from)
                    .and_then(|line| writeln!(out, "{line}"))
                    .map_err(|e| StoreError::io("write", &path, e))?,
                Event::Pairs { done, of } => on_pair(done, of),
            }
            Ok(())
        });
        let failed = checked.is_err();
        outcome = Some(checked);
        if failed { Err(io::Error::other("the check did not end")) } else { Ok(()) }
    });
    let mut summary = match outcome {
        Some(outcome) => outcome?,
        None => return Err(written.err().map_or_else(|| unwritten(folder), DataError::from)),
    };
    written?;
    summary.path = name.display().to_string();
    let exclusions = if settings.exclude.is_empty() {
        None
    } else {
        let path = folder.join("excluded.jsonl");
        exclusions::write(&path, set, name, &summary.excluded)?;
        Some(path)
    };
    let index = folder.join("index.html");
    atomic::write_bytes(&index, page(&summary, &cases(set, &summary)).as_bytes())?;
    Ok((summary, Written { findings: path, page: index, exclusions }))
}

fn unwritten(folder: &Path) -> DataError {
    DataError::Output { path: folder.to_path_buf(), problem: "was not written to".into() }
}

fn header(set: &PairSet, name: &Path, settings: &Settings) -> Value {
    json!({
        "check_format": CHECK_FORMAT,
        "set": name.display().to_string(),
        "fingerprint": hex(&set.opened_fingerprint()),
        "rows": set.len() + set.skipped().len(),
        "pairs": set.len(),
        "resolution": settings.resolution,
        "held_out_fraction": settings.held_out_fraction,
        "seed": settings.seed,
        "max_token_length": settings.caption_tokens.map(|tokens| tokens.limit),
    })
}

/// Finds out whether [`write()`] may use a folder for a set: it may not hold something else than an earlier check, and not be of
/// the set.
///
/// # Errors
/// [`DataError::Output`]; [`DataError::Store`] if it cannot be read.
pub fn check_folder(folder: &Path, set: &Path) -> Result<(), DataError> {
    let refuse =
        |problem: &str| Err(DataError::Output { path: folder.to_path_buf(), problem: problem.to_owned() });
    let (real_folder, real_set) = (real(folder), real(set));
    if real_folder == real_set || (set.is_dir() && real_folder.starts_with(&real_set)) {
        return refuse("belongs to the set, which is never written to");
    }
    if folder.is_dir() {
        let read = |e| StoreError::io("read", folder, e);
        let is_empty = folder.read_dir().map_err(read)?.next().is_none();
        if !is_empty && !is_ours(&folder.join(FINDINGS)) {
            return refuse("holds something else than an earlier check");
        }
    }
    Ok(())
}

fn is_ours(findings: &Path) -> bool {
    const LONGEST: u64 = 1 << 20;
    let mut line = String::new();
    let read = File::open(findings).and_then(|file| BufReader::new(file.take(LONGEST)).read_line(&mut line));
    let header = serde_json::from_str::<Value>(&line).ok();
    read.is_ok() && header.is_some_and(|header| header.get("check_format").is_some())
}

/// A path without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut real = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
        if let Ok(found) = real.canonicalize() {
            real = found;
        }
    }
    real
}
