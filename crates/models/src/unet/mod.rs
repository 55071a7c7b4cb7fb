//! `UNet2DConditionModel` of diffusers: SD1.x, SD2.x and SDXL.

mod attention;
mod blocks;
mod config;
mod footprint;
mod keys;
mod model;

pub(crate) use blocks::{Resnet, ResnetShape};
pub use config::{BlockKind, TextTime, UNetConfig};
pub use footprint::{Activations, Footprint, Pass, TrainedPart};
pub use keys::original as original_name;
pub use model::UNet;
pub(crate) use model::preferred_layout;
