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
    /// An image of a format that is not read.
    OtherFormat,
    /// An image that does not decode.
    BadImage,
    /// A list of exclusions names it.
    Excluded,
}

impl Reason {
    /// What follows the number of rows that are skipped for it.
    pub fn words(self, n: usize) -> &'static str {
        match self {
            Self::Tie if n == 1 => "tie",
            Self::Tie => "ties",
            Self::BadRow if n == 1 => "malformed row",
            Self::BadRow => "malformed rows",
            Self::NoCaption => "without a caption",
            Self::CaptionsDiffer => "with two different captions",
            Self::LongCaption => "with a caption that is too long",
            Self::MissingImage => "with an image that is not there",
            Self::NoCounterpart => "without a counterpart",
            Self::OtherFormat => "with an image of a format that is not read",
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

impl Skipped {
    /// What its set calls it, `place`, and what was found: by the line of its file where that says more, and never by both.
    pub fn named(&self, place: String) -> (String, &str) {
        let line = self.detail.strip_prefix("line ").and_then(|rest| rest.split_once(' '));
        match line.filter(|(number, _)| number.parse::<u64>().is_ok()) {
            Some((number, found)) => (format!("line {number}"), found),
            None => (place, &self.detail),
        }
    }
}

/// Rows skipped, counted by reason: `3 ties, 1 missing caption`.
pub fn in_words(rows: &[Skipped]) -> String {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.reason).or_default() += 1;
    }
    let words: Vec<String> =
        counts.into_iter().map(|(reason, n)| format!("{n} {}", reason.words(n))).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_one_number() {
        let named = |detail: &str| {
            let row = Skipped { id: PairId(31), reason: Reason::BadRow, detail: detail.into() };
            let (place, found) = row.named("row 31".into());
            format!("{place}: {found}")
        };
        assert_eq!(named("line 33 is not valid JSON"), "line 33: is not valid JSON");
        assert_eq!(named("2 cells; wanted 3"), "row 31: 2 cells; wanted 3");
        assert_eq!(named("line by line"), "row 31: line by line");
    }

    #[test]
    fn one_row_and_several_are_counted_in_words() {
        let rows = |counts: &[(Reason, u64)]| -> Vec<Skipped> {
            let row = |(reason, n): &(Reason, u64)| (0..*n).map(|i| (PairId(i), *reason)).collect::<Vec<_>>();
            let rows = counts.iter().flat_map(row);
            rows.map(|(id, reason)| Skipped { id, reason, detail: "".into() }).collect()
        };
        assert_eq!(in_words(&rows(&[(Reason::BadRow, 1), (Reason::Tie, 1)])), "1 tie, 1 malformed row");
        let several = rows(&[(Reason::Tie, 2), (Reason::BadRow, 3), (Reason::NoCaption, 1)]);
        assert_eq!(in_words(&several), "2 ties, 3 malformed rows, 1 without a caption");
    }
}
