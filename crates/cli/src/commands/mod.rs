//! One file or folder per command.

pub mod accuracy;
pub mod compare;
pub mod completions;
pub mod curate;
pub mod data;
pub mod demo;
mod device;
pub mod doctor;
mod fetching;
mod generate_flags;
pub mod model;
mod parts;
pub mod sample;
pub mod score;
pub mod settings;
pub mod train;
pub mod vote;
pub mod watch;

pub use device::DeviceFlag;
pub use generate_flags::{GenerateFlags, PromptFlags, images_per_prompt, seeds, tokens};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The side of a square that latents divide: a multiple of 8.
fn side(text: &str) -> Result<u32, String> {
    let side: u32 = text.parse().map_err(|error| format!("{error}"))?;
    let fits = side > 0 && side <= 16_384 && side.is_multiple_of(8);
    fits.then_some(side).ok_or_else(|| "wanted a multiple of 8, at most 16384".to_owned())
}

/// How many of something, and not none.
fn some(text: &str) -> Result<usize, String> {
    let n: usize = text.parse().map_err(|error| format!("{error}"))?;
    (n > 0).then_some(n).ok_or_else(|| "wanted at least 1".to_owned())
}

/// A choice among words, as recipes spell them.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| error.to_string().replace('`', ""))
}
