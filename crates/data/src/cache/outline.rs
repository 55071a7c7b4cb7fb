//! What a shard says of its pairs, kept in the index: a cache is opened without opening a shard.

use serde::{Deserialize, Serialize};
use tastemaker_store::StoreError;

use super::PAIRS_PER_SHARD;
use super::pairs::{COLUMNS, skipped};
use super::shard::ShardFile;
use crate::transform::Size;

/// What stands for a pair that is skipped.
const SKIPPED: &str = "-";

/// Resolutions of a shard's pairs, and which of them are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outline {
    /// Runs of pairs of one bucket resolution, such as `512x512*200 - 640x448 512x512*54`; `-` is a pair that is skipped.
    resolutions: String,
    /// Positions in the shard that are skipped, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(usize, String)>,
}

impl Outline {
    /// That of a shard.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] for what is no shard of pairs.
    pub fn of(shard: &ShardFile) -> Result<Self, StoreError> {
        let skipped =
            skipped(shard).map_err(|source| StoreError::Json { path: shard.path().to_owned(), source })?;
        let words = shard.table("entries", COLUMNS)?.chunks_exact(COLUMNS).map(|row| match row {
            [-1, ..] => SKIPPED.to_owned(),
            [width, height, ..] => format!("{width}x{height}"),
            _ => String::new(),
        });
        Ok(Self { resolutions: in_runs(words), skipped })
    }

    /// The resolution of every pair, `None` for one that is skipped; `None` in all if it was crafted.
    pub fn pairs(&self) -> Option<Vec<Option<Size>>> {
        let mut pairs = Vec::new();
        for run in self.resolutions.split_whitespace() {
            let (word, count) = run.split_once('*').unwrap_or((run, "1"));
            let size = || word.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            let pair = if word == SKIPPED { None } else { Some(size()?) };
            let count: usize = count.parse().ok()?;
            if count > PAIRS_PER_SHARD - pairs.len() {
                return None;
            }
            pairs.extend(std::iter::repeat_n(pair, count));
        }
        let fits = |position: usize| matches!(pairs.get(position), Some(None));
        let n_skipped = pairs.iter().filter(|pair| pair.is_none()).count();
        let goes_together =
            n_skipped == self.skipped.len() && self.skipped.iter().all(|&(position, _)| fits(position));
        goes_together.then_some(pairs)
    }
}

/// Words that follow each other and are the same become one, with their number.
fn in_runs(words: impl Iterator<Item = String>) -> String {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for word in words {
        match runs.last_mut() {
            Some((last, count)) if *last == word => *count += 1,
            _ => runs.push((word, 1)),
        }
    }
    let run = |(word, count): (String, usize)| if count == 1 { word } else { format!("{word}*{count}") };
    runs.into_iter().map(run).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_resolutions_say_the_same_as_the_list_of_them() {
        let [square, wide] = [Some((512, 512)), Some((640, 448))];
        let pairs = [square, square, None, wide, square, None, None];
        let words = pairs.map(|pair| pair.map_or(SKIPPED.to_owned(), |(w, h)| format!("{w}x{h}")));
        let outline = Outline {
            resolutions: in_runs(words.into_iter()),
            skipped: [2, 5, 6].map(|at| (at, "x".to_owned())).into(),
        };
        assert_eq!(outline.resolutions, "512x512*2 - 640x448 512x512 -*2");
        assert_eq!(outline.pairs().unwrap(), pairs);
    }

    #[test]
    fn a_crafted_outline_is_refused() {
        for crafted in ["512x512*99999999999", "512x512*200 512x512*57", "512", "-", "x", "512x-1"] {
            let outline = Outline { resolutions: crafted.to_owned(), skipped: Vec::new() };
            assert_eq!(outline.pairs(), None, "{crafted}");
        }
    }
}
