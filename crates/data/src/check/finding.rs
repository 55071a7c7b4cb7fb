//! One thing found.

use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::checks::Kind;
use crate::set::PairSet;
use crate::{PairId, PairSource, Side};

/// What a finding is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// The set as a whole.
    Set,
    /// A row that is no pair.
    Skipped(PairId),
    /// The pair at a position.
    Pair(PairId, usize),
}

/// One thing found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// By which check.
    pub kind: Kind,
    /// Where.
    pub subject: Subject,
    /// What the set calls the row; empty for the set.
    pub place: String,
    /// In which image, if in one.
    pub side: Option<Side>,
    /// The file of that image.
    pub file: Option<PathBuf>,
    /// What was found.
    pub detail: String,
    /// The higher, the worse among findings of one kind.
    pub badness: f64,
}

impl Finding {
    /// About the pair at a position.
    pub fn of_pair(
        set: &PairSet,
        position: usize,
        kind: Kind,
        side: Option<Side>,
        detail: String,
        badness: f64,
    ) -> Self {
        let id = set.id(position);
        Self {
            kind,
            subject: Subject::Pair(id, position),
            place: set.place(id),
            side,
            file: side.map(|side| set.file(position, side)),
            detail,
            badness,
        }
    }

    /// The id of the row, if it is about one.
    pub fn row(&self) -> Option<PairId> {
        match self.subject {
            Subject::Set => None,
            Subject::Skipped(id) | Subject::Pair(id, _) => Some(id),
        }
    }
}

/// As `check.jsonl` has it.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let check = self.kind.check();
        let mut line = serializer.serialize_struct("Finding", 7)?;
        line.serialize_field("row", &self.row())?;
        line.serialize_field("place", &self.place)?;
        line.serialize_field("side", &self.side)?;
        line.serialize_field("check", check.name)?;
        line.serialize_field("severity", check.severity.name())?;
        line.serialize_field("detail", &self.detail)?;
        line.serialize_field("file", &self.file.as_ref().map(|file| file.display().to_string()))?;
        line.end()
    }
}
