//! The two contracts of a latent diffusion model's networks.

use tch::Tensor;

use crate::Conditioning;

/// A network that predicts noise, velocity or flow from a noisy sample.
///
/// # Shapes
/// `x` `[b, c, h, w]`, `timestep` `[b]` (any numeric type), result `[b, c, h, w]` f32.
///
/// A timestep is a training timestep where noise levels are a table, and `1000 s` at noise level `s` of a flow, whose output is `e - z`: a
/// network that is published with another unit or sign converts inside.
pub trait Denoiser {
    /// One forward pass.
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor;
}

/// An image's distribution in latent space, already multiplied by the scaling factor.
#[derive(Debug)]
pub struct Posterior {
    /// Mean, `[b, c, h, w]` f32.
    pub mean: Tensor,
    /// Standard deviation, `[b, c, h, w]` f32.
    pub std: Tensor,
}

/// A network pair that moves images into latent space and back. The scaling factor stays inside.
///
/// # Shapes
/// Images `[b, 3, H, W]` in [-1, 1]; latents `[b, c, h, w]`, f32 on both sides.
pub trait Vae {
    /// Posterior of each image.
    fn encode(&self, images: &Tensor) -> Posterior;
    /// Images of latents; not clamped.
    fn decode(&self, latents: &Tensor) -> Tensor;
}
