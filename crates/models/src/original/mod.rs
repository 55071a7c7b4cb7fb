//! Single-file checkpoints under the names of the original Stable Diffusion code.
//!
//! One file holds UNet, VAE and text encoders; configurations, tokenizers and the noise schedule are not in it. The same
//! tensors go from a diffusers folder into such a file and back without a bit changed, and networks are built from either.

mod keys;
mod map;
mod noise;
mod open_file;
mod preset;
mod settings;

pub use keys::Layout;
pub(crate) use keys::{UNET, VAE, is_ballast, is_ballast_of_vae, usual_name};
pub(crate) use map::shapes;
pub use map::{
    ComponentMap, Problems, n_numbers, qwen_shapes, t5_shapes, text_shapes, unet_shapes, vae_shapes,
};
pub(crate) use noise::parsed;
pub use noise::{StatedNoise, Witness, spelled};
pub(crate) use noise::{architecture, marks};
pub(crate) use open_file::{OpenFile, refuse};
pub use preset::Preset;
pub(crate) use preset::published_tokenizer;
