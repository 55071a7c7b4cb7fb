//! BLIP as ImageReward uses it: an image tower, a text encoder that attends to it in every layer, and a head for one number.

mod config;
mod files;
mod keys;
mod text;
mod tokenizer;
mod vision;

pub use config::{MedConfig, VitConfig};
pub use files::{ImageReward, ImageRewardFiles};
pub use tokenizer::BertTokenizer;
