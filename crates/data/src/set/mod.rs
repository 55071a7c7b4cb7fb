//! A set of pairs that is on disk or further away: an index in memory, images where they are.

mod builder;
mod captions;
mod container;
mod image;
mod pair_set;
mod prompt;

pub use builder::{Builder, MAX_CAPTION_BYTES, Names};
pub use captions::Strings;
pub use container::{Container, Files, Spot};
pub use image::{MAX_IMAGE_BYTES, decode, decode_with_orientation};
pub use pair_set::PairSet;
pub use prompt::prompt_of;
