//! Making a small latent diffusion model from nothing: the embedded default's vae, text encoder and network.
//!
//! The network itself is pre-trained by the ordinary training step with the `sft` objective; VAE and text encoder
//! have losses of their own. All share one resumable loop.

mod clip;
mod looping;
mod vae;

pub use clip::contrastive_loss;
pub use looping::{LoopSettings, Progress, run};
pub use vae::{VaeLoss, vae_loss};
