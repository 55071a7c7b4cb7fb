//! Classifier-free guidance as a denoiser made of a denoiser.

use tch::Tensor;

use crate::{Conditioning, Denoiser};

/// `u + scale (c - u)` with `c` the conditional and `u` the unconditional prediction.
///
/// At scale 1 and below the unconditional branch is not evaluated and does not count: SDXL-Turbo is painted with scale 0.
///
/// Source: arXiv 2207.12598; `do_classifier_free_guidance` in `huggingface/diffusers:src/diffusers/pipelines/`.
pub struct Guided<'a> {
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// Conditioning of the empty or negative prompt: one for all samples, or one for each.
    pub unconditional: &'a Conditioning,
    /// Guidance scale as diffusers counts it: 1 and below is no guidance.
    pub scale: f64,
}

impl Denoiser for Guided<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        if self.scale <= 1.0 {
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
