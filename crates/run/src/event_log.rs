//! `events.jsonl`: one JSON object a line, appended as it happens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tastemaker_store::StoreError;

use crate::{Event, RunError};

const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    tastemaker_events: u32,
}

/// A log open for appending. Every event is handed to the operating system as one whole line before
/// [`append`](Self::append) returns.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Opens a log at its end, or begins one.
    ///
    /// A last line without its end, left by a kill in mid-write, is cut off: it never was an event.
    ///
    /// # Errors
    /// [`RunError::Store`] if the file cannot be written, [`RunError::Format`] if it is not a log of this
    /// version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RunError> {
        let path = path.as_ref().to_path_buf();
        let whole = match fs::read(&path) {
            Ok(bytes) => whole_lines(&bytes).len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(StoreError::io("read", &path, e).into()),
        };
        if whole > 0 {
            read_events(&path)?;
        }
        let fail = |e| StoreError::io("write", &path, e);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        file.set_len(whole as u64).map_err(fail)?;
        let mut log = Self { path, file };
        if whole == 0 {
            log.line(&Header { tastemaker_events: VERSION })?;
        }
        Ok(log)
    }

    /// Appends one event.
    ///
    /// # Errors
    /// [`RunError::Store`] if it cannot be written.
    pub fn append(&mut self, event: &Event) -> Result<(), RunError> {
        self.line(event)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(value)
            .map_err(|source| StoreError::Json { path: self.path.clone(), source })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| StoreError::io("write", &self.path, e))?;
        Ok(())
    }
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvents {
    /// The events in order.
    pub events: Vec<Event>,
    /// Whether the last line lacks its end: the writer is at it, or was killed.
    pub is_torn: bool,
}

/// Reads a log, also while it is being written.
///
/// # Errors
/// [`RunError::Store`] if it cannot be read, [`RunError::Format`] naming the line that is not an event of
/// this version.
pub fn read_events(path: impl AsRef<Path>) -> Result<RecordedEvents, RunError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
    let whole = whole_lines(&bytes);
    let wrong = |line: usize, found: String, wanted: &str| RunError::Format {
        path: path.to_path_buf(),
        line,
        found,
        wanted: wanted.into(),
    };

    let mut lines = whole.split_inclusive(|&byte| byte == b'\n');
    let wanted = format!("{{\"tastemaker_events\":{VERSION}}}");
    match lines.next().map(serde_json::from_slice::<Header>) {
        Some(Ok(header)) if header.tastemaker_events == VERSION => {}
        Some(Ok(header)) => return Err(wrong(1, format!("version {}", header.tastemaker_events), &wanted)),
        Some(Err(_)) => return Err(wrong(1, "another kind of file".into(), &wanted)),
        None if bytes.is_empty() => {}
        None => return Ok(RecordedEvents { events: Vec::new(), is_torn: true }),
    }
    let events = lines
        .enumerate()
        .map(|(i, line)| serde_json::from_slice(line).map_err(|e| wrong(i + 2, e.to_string(), "an event")))
        .collect::<Result<_, _>>()?;
    Ok(RecordedEvents { events, is_torn: whole.len() < bytes.len() })
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    &bytes[..end]
}
