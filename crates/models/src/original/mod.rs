//! Single-file checkpoints under the names of the original Stable Diffusion code.
//!
//! One file holds UNet, VAE and text encoders; configurations, tokenizers and the noise schedule are not in it. The same
//! tensors go from a diffusers folder into such a file and back without a bit changed.

mod checkpoint;
mod keys;
mod map;
mod place;
mod preset;

pub use checkpoint::{SingleFile, pack};
pub use keys::Layout;
pub use map::{ComponentMap, Problems, unet_shapes};
pub use place::{Change, Moved, Place, Shapes, restore, store};
pub use preset::Preset;
