//! Writing a set of pairs in a layout of others.

mod jsonl;
mod pick_a_pic;
mod shards;

pub use jsonl::jsonl;
pub use pick_a_pic::pick_a_pic;
pub use shards::{ExtraColumn, Kind, Row, Shards, Value};

use std::path::Path;

use crate::DataError;
use crate::set::PairSet;

/// Writes a set into a folder, in place of one that may be there, and calls back after every pair.
pub type Write = fn(&PairSet, &Path, &mut dyn FnMut()) -> Result<(), DataError>;

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
