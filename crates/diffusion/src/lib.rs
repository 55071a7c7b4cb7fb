//! Diffusion as functions over a network: what a denoiser is, how images are corrupted, how samples are drawn.

pub mod conditioning;
pub mod corruption;
pub mod denoiser;
pub mod guidance;
pub mod noise;
pub mod samplers;

pub use conditioning::Conditioning;
pub use denoiser::{Denoiser, Posterior, Vae};
