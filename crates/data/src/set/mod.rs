//! A set of pairs that is on disk or further away: an index in memory, images where they are.

mod builder;
mod captions;
mod container;
mod correct;
mod names;
mod pair_set;
mod pixels;
mod prompt;
mod row;

pub(crate) use builder::{Builder, MAX_CAPTION_BYTES};
pub use captions::Strings;
pub(crate) use container::{Container, Files};
pub(crate) use names::Names;
pub use pair_set::PairSet;
pub use pixels::{DECODER, decode, read_encoded};
pub(crate) use pixels::{
    HEAD, MAX_IMAGE_BYTES, decode_leased, decode_with_orientation, decodes_as_ever, needed,
};
pub use prompt::{ImagePrompt, png_texts, prompt_of};
pub use row::ImageRef;
pub(crate) use row::{Labels, Verdict};
