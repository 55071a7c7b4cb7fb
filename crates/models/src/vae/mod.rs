//! `AutoencoderKL` of diffusers: the image VAE of SD1.x, SD2.x and SDXL.

mod config;
mod footprint;
mod keys;
mod model;

pub use config::VaeConfig;
pub use keys::{modern_name, original as original_place};
pub use model::AutoencoderKl;
