//! Making a small latent diffusion model from nothing: the embedded default's codec, text encoder and network.
//!
//! The network itself is pre-trained by the ordinary training step with the `sft` objective; codec and text encoder
//! have losses of their own. All share one resumable loop.

mod clip;
mod codec;
mod looping;

pub use clip::contrastive_loss;
pub use codec::{CodecLoss, codec_loss};
pub use looping::{LoopSettings, Progress, run};
