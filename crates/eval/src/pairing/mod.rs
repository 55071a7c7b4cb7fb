//! From pictures to pairs: mixes of scorers, which pictures of a prompt are paired, and published prefixes.
//!
//! Everything here is about numbers and names; painting, scoring and writing are elsewhere.

mod mix;
mod pick;
mod prefixes;

pub use mix::{Mixed, Standard, mix, weights};
pub use pick::{Choice, Pick, choose};
pub use prefixes::{PRESETS, Preset, prefixed};
