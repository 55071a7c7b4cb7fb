//! Classifier-free guidance as a denoiser made of a denoiser, or of two.

use tch::Tensor;

use crate::{Conditioning, Denoiser};

/// `u + scale (c - u)` with `c` the conditional and `u` the unconditional prediction.
///
/// One scale for all families: pipelines that count it otherwise, as Z-Image's `c + g (c - u)`, are generated with
/// theirs plus 1.
///
/// At scale 1 and below the unconditional branch is not evaluated and does not count: SDXL-Turbo is generated with scale 0.
///
/// Source: arXiv 2207.12598; `do_classifier_free_guidance` in `huggingface/diffusers:src/diffusers/pipelines/`.
pub struct Guided<'a> {
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// Conditioning of the empty or negative prompt: one for all samples, or one for each.
    pub unconditional: &'a Conditioning,
    /// Guidance scale as diffusers counts it: 1 and below is no guidance.
    pub scale: f64,
    /// How far the standard deviation of each guided prediction is brought to that of its conditional one, from 0 to 1; 0 leaves it as it is.
    ///
    /// Source: arXiv 2305.08891, section 3.4; `rescale_noise_cfg` of diffusers.
    pub rescale: f64,
    /// Another network for the unconditional prediction, trained on what people do not want; then each network predicts one of
    /// the two.
    ///
    /// Source: Diffusion-NPO, arXiv 2505.11245.
    pub negative: Option<&'a dyn Denoiser>,
}

impl<'a> Guided<'a> {
    /// Guidance by one network, without rescaling.
    pub fn new(denoiser: &'a dyn Denoiser, unconditional: &'a Conditioning, scale: f64) -> Self {
        Self { denoiser, unconditional, scale, rescale: 0.0, negative: None }
    }

    /// The unconditional and the conditional prediction, `[n, c, h, w]` each.
    fn branches(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> (Tensor, Tensor) {
        let n = x.size()[0];
        let unconditional = if self.unconditional.len() == n as usize {
            self.unconditional.shallow_clone()
        } else {
            self.unconditional.select(&Tensor::zeros([n], (tch::Kind::Int64, x.device())))
        };
        if let Some(negative) = self.negative {
            let u = negative.predict(x, timestep, &unconditional);
            return (u, self.denoiser.predict(x, timestep, conditioning));
        }
        let both = self.denoiser.predict(
            &Tensor::cat(&[x, x], 0),
            &Tensor::cat(&[timestep, timestep], 0),
            &unconditional.followed_by(conditioning),
        );
        (both.narrow(0, 0, n), both.narrow(0, n, n))
    }
}

impl Denoiser for Guided<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        if self.scale <= 1.0 {
            return self.denoiser.predict(x, timestep, conditioning);
        }
        let (u, c) = self.branches(x, timestep, conditioning);
        let guided = &u + self.scale * (&c - &u);
        if self.rescale == 0.0 {
            return guided;
        }
        let ratio = std(&c) / std(&guided); // [n, 1, 1, 1]
        guided * (ratio * self.rescale + (1.0 - self.rescale))
    }
}

/// Standard deviation of each sample's values, `[n, c, h, w]` to `[n, 1, 1, 1]`.
fn std(x: &Tensor) -> Tensor {
    x.std_dim([1i64, 2, 3].as_slice(), true, true)
}
