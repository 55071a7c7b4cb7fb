//! A set of pairs that is on disk or further away: an index in memory, images where they are.

mod builder;
mod captions;
mod container;
mod image;
mod names;
mod pair_set;
mod prompt;
mod row;

pub(crate) use builder::{Builder, MAX_CAPTION_BYTES};
pub use captions::Strings;
pub(crate) use container::{Container, Files};
pub use image::decode;
pub(crate) use image::{MAX_IMAGE_BYTES, decode_with_orientation};
pub(crate) use names::Names;
pub use pair_set::PairSet;
pub use prompt::prompt_of;
pub use row::ImageRef;
pub(crate) use row::{Labels, Verdict};
