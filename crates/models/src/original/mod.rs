//! Single-file checkpoints under the names of the original Stable Diffusion code.
//!
//! One file holds UNet, VAE and text encoders; configurations, tokenizers and the noise schedule are not in it. The same
//! tensors go from a diffusers folder into such a file and back without a bit changed, and networks are built from either.

mod checkpoint;
mod keys;
mod map;
mod open_file;
mod place;
mod preset;

pub(crate) use checkpoint::{HeldNetwork, vae_in_file};
pub use checkpoint::{SingleFile, pack};
pub use keys::Layout;
pub(crate) use map::shapes;
pub use map::{ComponentMap, Problems, n_numbers, text_shapes, unet_shapes};
pub(crate) use open_file::{OpenFile, refuse};
pub use place::{Change, Moved, Place, Shapes, restore, store};
pub use preset::Preset;
pub(crate) use preset::published_tokenizer;
