//! One file or folder per command.

pub mod accuracy;
pub mod compare;
pub mod data;
pub mod demo;
mod device;
mod fetching;
mod generate_flags;
pub mod model;
mod parts;
pub mod sample;
pub mod score;
pub mod settings;
pub mod train;

pub use device::DeviceFlag;
pub use generate_flags::{GenerateFlags, PromptFlags};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A choice among words, as recipes spell them.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| error.to_string().replace('`', ""))
}
