//! Writing a set of pairs in a layout of others.

mod jsonl;
mod pick_a_pic;
mod shards;

pub use jsonl::jsonl;
pub use pick_a_pic::pick_a_pic;
pub use shards::{ExtraColumn, Kind, Row, Shards, Value};

use std::path::Path;
use std::thread;

use crate::ordered::in_order;
use crate::set::PairSet;
use crate::skipped::in_words;
use crate::{DataError, PairSource, Reason, Side, Skipped};

/// Pairs that each thread may be ahead of the one that is written next.
const AHEAD: usize = 2;

/// Writes a set into a folder, in place of one that may be there, and calls back after every pair.
pub type Write = fn(&PairSet, &Path, &mut dyn FnMut()) -> Result<Written, DataError>;

/// What was written of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// How many pairs.
    pub n_pairs: usize,
    /// Pairs of the set that were not, since an image of theirs does not decode; in order of their ids.
    pub skipped: Vec<Skipped>,
}

/// A layout that sets are written in.
pub struct Writer {
    /// Its name in help and documentation.
    pub name: &'static str,
    /// What it makes, in a few words.
    pub makes: &'static str,
    /// How it is written.
    pub write: Write,
}

/// Every layout we write.
pub static WRITERS: &[Writer] = &[
    Writer {
        name: "pick-a-pic",
        makes: "data/train-*.parquet with jpg_0, jpg_1, label_0, label_1, caption",
        write: pick_a_pic,
    },
    Writer { name: "jsonl", makes: "metadata.jsonl and images/", write: jsonl },
];

/// Hands over the encoded images of every pair whose images decode, with its number among these and its position.
fn each_pair(
    set: &PairSet,
    on_pair: &mut dyn FnMut(),
    mut write: impl FnMut(usize, usize, [Vec<u8>; 2]) -> Result<(), DataError>,
) -> Result<Written, DataError> {
    let n_workers = thread::available_parallelism().map_or(1, |n| n.get()).min(set.len());
    let read = |position: usize| -> Result<[Vec<u8>; 2], DataError> {
        Ok([set.verified(position, Side::Winner)?, set.verified(position, Side::Loser)?])
    };
    let mut written = Written { n_pairs: 0, skipped: Vec::new() };
    in_order(0..set.len(), n_workers, AHEAD * n_workers, read, |position, images| {
        match images {
            Ok(images) => {
                write(written.n_pairs, position, images)?;
                written.n_pairs += 1;
            }
            Err(error) => {
                let detail = error.skips().ok_or(error)?.into();
                written.skipped.push(Skipped { id: set.id(position), reason: Reason::BadImage, detail });
            }
        }
        on_pair();
        Ok::<(), DataError>(())
    })?;
    if written.n_pairs == 0 {
        let first = written.skipped.first().map_or("", |row| &*row.detail);
        let reason = format!("all its rows are skipped: {} ({first})", in_words(&written.skipped));
        return Err(DataError::Empty { path: set.path().to_owned(), reason });
    }
    Ok(written)
}
