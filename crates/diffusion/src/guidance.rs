//! Classifier-free guidance as a denoiser made of a denoiser.

use tch::Tensor;

use crate::{Conditioning, Denoiser};

/// `u + scale (c - u)` with `c` the conditional and `u` the unconditional prediction.
///
/// At scale 1 the unconditional branch is not evaluated.
///
/// Source: arXiv 2207.12598.
pub struct Guided<'a> {
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// Conditioning of the empty or negative prompt: one for all samples, or one for each.
    pub unconditional: &'a Conditioning,
    /// Guidance scale as diffusers counts it: 1 is no guidance.
    pub scale: f64,
}

impl Denoiser for Guided<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        if self.scale == 1.0 {
            return self.denoiser.predict(x, timestep, conditioning);
        }
        let n = x.size()[0];
        let unconditional = if self.unconditional.len() == n as usize {
            self.unconditional.share()
        } else {
            self.unconditional.select(&Tensor::zeros([n], (tch::Kind::Int64, x.device())))
        };
        let both = self.denoiser.predict(
            &Tensor::cat(&[x, x], 0),
            &Tensor::cat(&[timestep, timestep], 0),
            &unconditional.followed_by(conditioning),
        );
        let (u, c) = (both.narrow(0, 0, n), both.narrow(0, n, n));
        &u + self.scale * (c - &u)
    }
}
