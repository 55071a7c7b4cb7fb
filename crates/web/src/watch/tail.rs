//! A log as it grows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::de::IgnoredAny;

/// What is read at once, in bytes.
const PART: u64 = 256 << 10;

/// The longest line.
const LONGEST: usize = 4 << 20;

/// What a log has that was not there before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the log began anew: forget what was said before.
    pub is_new: bool,
    /// Whole lines that are JSON objects.
    pub lines: Vec<String>,
    /// Whether anything was read at all: lines may be longer than a part.
    pub is_more: bool,
    /// How long ago the log was written to, in seconds, where it has lines.
    pub age: u64,
    /// Whether the log has just gone.
    pub is_gone: bool,
}

/// A log, and how far it was read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// The first bytes of the file, by which another file of that name is known.
    start: Vec<u8>,
    rest: Vec<u8>,
    is_there: bool,
}

impl Tail {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, start: Vec::new(), rest: Vec::new(), is_there: false }
    }

    /// What came since the last time, up to a part; nothing where nothing came, or the log is not there.
    pub fn next(&mut self) -> Found {
        let is_gone = self.is_there && !self.path.is_file();
        if is_gone {
            // Whatever comes to this place is another log, even if it begins alike.
            (self.is_there, self.start) = (false, vec![0]);
        }
        self.read().unwrap_or(Found { is_gone, ..Found::default() })
    }

    fn read(&mut self) -> std::io::Result<Found> {
        let mut file = File::open(&self.path)?;
        self.is_there = true;
        let metadata = file.metadata()?;
        let length = metadata.len();
        let mut start = vec![0; self.start.len()];
        let same = length >= self.offset && file.read_exact(&mut start).is_ok() && start == self.start;
        let mut found = Found::default();
        if !same {
            *self = Self { is_there: true, ..Self::new(std::mem::take(&mut self.path)) };
            found.is_new = true;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(PART).read_to_end(&mut bytes)?;
        if self.start.len() < 200 && self.offset as usize == self.start.len() {
            let room = 200 - self.start.len();
            self.start.extend(bytes.iter().take(room));
        }
        self.offset += bytes.len() as u64;
        found.is_more = !bytes.is_empty();
        self.rest.extend(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
        let lines = whole.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let is_json = |line: &&str| line.starts_with('{') && serde_json::from_str::<IgnoredAny>(line).is_ok();
        found.lines = lines.filter(is_json).map(str::to_owned).collect();
        if !found.lines.is_empty() {
            found.age = metadata.modified()?.elapsed().map_or(0, |age| age.as_secs());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_come_once_and_whole_and_a_new_log_is_told_from_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.next(), Found::default());
        let write = |text: &str| {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write("{\"a\":1}\n{\"b\"");
        assert_eq!(tail.next().lines, ["{\"a\":1}"]);
        assert_eq!(tail.next(), Found::default());
        write(":2}\nno json\n");
        assert_eq!(tail.next().lines, ["{\"b\":2}"]);
        std::fs::write(&path, "{\"c\":3}\n{\"d\":\"longer than what was there before\"}\n").unwrap();
        let found = tail.next();
        assert!(found.is_new && found.lines.len() == 2, "{found:?}");
        std::fs::write(&path, "{}\n").unwrap();
        let found = tail.next();
        assert_eq!((found.is_new, found.lines), (true, vec!["{}".to_owned()]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail.next(), Found { is_gone: true, ..Found::default() });
        assert_eq!(tail.next(), Found::default());
        write("null\n[1]\n\"x\"\n{\"e\":4}\n");
        let found = tail.next();
        assert_eq!(
            (found.is_new, found.lines),
            (true, vec!["{\"e\":4}".to_owned()]),
            "objects alone are events"
        );
    }
}
