//! Row-shaped sources: whatever holds the rows, which columns mean what is decided here, and so is what becomes of a row.

mod cell;
mod conventions;
mod detect;
mod images;
mod layout;
mod ranking;
mod reader;
mod scores;
mod shape;
mod unpaired;

pub use cell::{Cell, Row};
pub use conventions::{CONVENTIONS, Convention};
pub use detect::{Detect, NamedRow};
pub use images::Images;
pub use layout::Layout;
pub use reader::{INSIDE, TableReader, liked};
pub use scores::Scores;
pub use shape::Shape;
