//! From images to pairs: mixes of scorers, which images of a prompt are paired, and published prefixes.
//!
//! Everything here is about numbers and names; generating, scoring and writing are elsewhere.

mod mix;
mod pick;
mod prefixes;

pub use mix::{Mixed, Standard, mix, weights};
pub use pick::{Choice, Pick, choose};
pub use prefixes::{PRESETS, Preset, prefixed};
