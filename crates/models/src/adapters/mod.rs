//! Adapter files: low-rank updates of a network, apart from the network.

mod detect;
mod file;
mod keys;
mod kohya;
mod merge;
mod nature;
mod noise;
mod part;
mod settings;

pub use detect::LoraNames;
pub use file::{FILE_NAME, LoraFile};
pub use kohya::{KOHYA_FILE_NAME, KohyaFacts};
pub use nature::Nature;
pub use noise::ChosenNoise;
pub use part::LoraPart;
