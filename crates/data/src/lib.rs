//! Preference pairs: two images of one caption, and which of them people like better.
//!
//! * [`PairSource`] is what training reads from; [`formats::open`] makes one from what is on disk, a [`set::PairSet`], and
//!   [`InMemoryPairs`] from images that are there already.
//! * A row that is no pair is [`Skipped`] by name, and the others keep their ids.
//! * [`cache`] keeps what images and captions are encoded to.
//! * [`check`] checks every row before training; [`exclusions`] are lists of rows that are skipped.
//! * [`split`] holds out captions, so that no held-out caption is ever trained on.
//! * [`order`] says which pair is used when: a pure function, so there is no iterator state to save.
//! * [`transform`] turns an image into the numbers that networks see, and back.
//! * [`budget`] is the memory that decoded images of all threads may take together.
//! * [`mod@write`] writes a set in a layout of others.

pub mod buckets;
pub mod budget;
pub mod cache;
pub mod check;
mod error;
pub mod exclusions;
pub mod formats;
mod memory;
pub mod order;
pub mod ordered;
mod pair;
pub mod set;
pub mod skipped;
pub mod split;
pub mod transform;
pub mod write;

pub use error::DataError;
pub use memory::{InMemoryPairs, Ranking};
pub use pair::{Images, Label, PairId, PairSource, Side};
pub use skipped::{Reason, Skipped};
