//! The loss that makes an image vae.

use tastemaker_models::vae::AutoencoderKl;
use tch::{Kind, Reduction, Tensor};

/// Weight of each squared difference at a smaller size.
const COARSE_WEIGHT: f64 = 4.0;

/// The parts of a VAE's loss.
#[derive(Debug)]
pub struct VaeLoss {
    /// What is minimized.
    pub total: Tensor,
    /// Mean absolute difference of pixels, in units of the range [-1, 1].
    pub reconstruction: f64,
}

/// Absolute difference of pixels and of their gradients, squared difference at half and quarter size, and a weak pull of
/// the posterior to the unit gaussian.
///
/// The gradients stand in for the perceptual network of arXiv 2112.10752: flat art lives by its edges. Squares at small
/// sizes make rare colors count: by absolute differences alone they stay at the commonest color for long.
///
/// # Shapes
/// `images` `[b, 3, H, W]` in [-1, 1]; `noise` `[b, c, h, w]` unit gaussian.
pub fn vae_loss(vae: &AutoencoderKl, images: &Tensor, noise: &Tensor, kl_weight: f64) -> VaeLoss {
    let (mean, log_variance) = vae.moments(images);
    let latents = &mean + (&log_variance * 0.5).exp() * noise;
    let decoded = vae.decode_raw(&latents);

    let pixels = decoded.l1_loss(images, Reduction::Mean);
    let mut total = pixels.shallow_clone() + edges(&decoded).l1_loss(&edges(images), Reduction::Mean);
    let (mut coarse, mut coarse_target) = (decoded, images.shallow_clone());
    for _ in 0..2 {
        coarse = halve(&coarse);
        coarse_target = halve(&coarse_target);
        total += coarse.mse_loss(&coarse_target, Reduction::Mean) * COARSE_WEIGHT;
    }
    // KL divergence to the unit gaussian, per latent element.
    let kl = (mean.square() + log_variance.exp() - 1.0 - &log_variance).mean(Kind::Float) * 0.5;
    VaeLoss { total: total + kl * kl_weight, reconstruction: pixels.double_value(&[]) }
}

fn halve(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
}

/// Horizontal and vertical differences, cropped to one size and stacked on the channels.
fn edges(x: &Tensor) -> Tensor {
    let (_, _, h, w) = x.size4().expect("images are four-dimensional");
    let corner = x.narrow(2, 0, h - 1).narrow(3, 0, w - 1);
    let right = x.narrow(2, 0, h - 1).narrow(3, 1, w - 1);
    let below = x.narrow(2, 1, h - 1).narrow(3, 0, w - 1);
    Tensor::cat(&[right - &corner, below - &corner], 1)
}
