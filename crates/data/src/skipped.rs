//! Rows that are not used, each by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::PairId;

/// Why a row is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Neither image won.
    Tie,
    /// It does not say what a row must.
    BadRow,
    /// It has no caption.
    NoCaption,
    /// Its images have different captions.
    CaptionsDiffer,
    /// Its caption is no caption any more.
    LongCaption,
    /// An image that it names is not there.
    MissingImage,
    /// An image without the other one.
    NoCounterpart,
    /// An image that does not decode.
    BadImage,
    /// A list of exclusions names it.
    Excluded,
}

impl Reason {
    /// How many rows of it are, in words: what follows a count.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tie => "ties",
            Self::BadRow => "rows that do not say what they must",
            Self::NoCaption => "without a caption",
            Self::CaptionsDiffer => "with two different captions",
            Self::LongCaption => "with a caption that is too long",
            Self::MissingImage => "with an image that is not there",
            Self::NoCounterpart => "without a counterpart",
            Self::BadImage => "with an image that does not decode",
            Self::Excluded => "excluded by a list",
        }
    }
}

/// A row that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The id it would have as a pair.
    pub id: PairId,
    /// Why.
    pub reason: Reason,
    /// What was found, where there is more to say; empty for ties, and beyond the first thousands.
    pub detail: Box<str>,
}

/// Rows skipped, counted by reason: `3 ties, 1 without a caption`.
pub fn in_words(rows: &[Skipped]) -> String {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.reason).or_default() += 1;
    }
    let words: Vec<String> =
        counts.into_iter().map(|(reason, n)| format!("{n} {}", reason.words())).collect();
    words.join(", ")
}
