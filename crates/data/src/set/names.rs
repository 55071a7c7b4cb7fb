//! What a set calls its rows, which are counted from 0 as their ids are.

use super::Strings;
use crate::PairId;

/// How a set calls its rows.
#[derive(Debug, Clone)]
pub enum Names {
    /// `row 0`, `row 1`, ...
    Rows,
    /// The same, counted within each of several files: each file's name with the number of rows in the files before it.
    RowsOf(Vec<(String, u64)>),
    /// By names of their own: `pair cat`.
    Pairs(Strings),
    /// Rows that each hold several pairs: `row 0, pair 1`. The id of each row's first pair.
    PairsOfRows(Vec<u64>),
}

impl Names {
    pub(super) fn of(&self, id: PairId) -> String {
        match self {
            Self::Rows => format!("row {id}"),
            Self::RowsOf(files) => {
                let after = files.partition_point(|(_, before)| *before <= id.0);
                match after.checked_sub(1).map(|file| &files[file]) {
                    Some((name, before)) => format!("row {} of {name}", id.0 - before),
                    None => format!("row {id}"),
                }
            }
            Self::Pairs(names) if (id.0 as usize) < names.len() => {
                format!("pair {}", names.get(id.0 as usize))
            }
            Self::Pairs(_) => format!("pair {id}"),
            Self::PairsOfRows(starts) => {
                let row = starts.partition_point(|start| *start <= id.0).saturating_sub(1);
                let before = starts.get(row).copied().unwrap_or(0);
                format!("row {row}, pair {}", id.0.saturating_sub(before))
            }
        }
    }
}
