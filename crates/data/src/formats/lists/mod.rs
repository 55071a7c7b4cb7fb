//! Lists of pairs in text: JSON and CSV. Images are files beside the list.

mod csv;
mod items;
mod json;

pub use csv::read_csv;
pub use items::{Item, Items};
pub use json::{cell, parse, read_json, read_jsonl};

/// The longest row that is read.
const MAX_ROW_BYTES: usize = 16 << 20;
