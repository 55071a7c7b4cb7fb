//! The image VAE, and the loss that makes one.

use serde_json::Value;
use tastemaker_diffusion::noise::NoiseKey;
use tastemaker_math::keyed::Stream;
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_store::json;
use tch::{Device, Kind, Reduction, Tensor};

use super::{Settings, WEIGHTS, built, config, encode_in_parts, images, rows, save};
use crate::DemoError;
use crate::art::{Art, SIDE};

/// Trains the VAE, and sets its scaling factor.
pub fn train(settings: &Settings, art: &Art, log: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let folder = settings.model.join("vae");
    let config = config(&folder, VaeConfig::from_json)?;
    let images = images(art, &[0, 1, 2, 3]);
    let n_images = images.size()[0] as usize;
    let weights = Weights::fresh(settings.seed, Role::Trained, settings.dtype, Device::Cpu);
    let vae = AutoencoderKl::new(weights.root(), config.clone(), settings.dtype);
    let (trainable, _) = built(weights, "vae")?;
    start_with_little_noise(&trainable, config.latent_channels);
    let side = i64::from(SIDE) / config.downsampling();
    let latent_shape = [config.latent_channels, side, side];

    let backward = |step: u64| {
        let rows = rows(settings.seed, step, settings.batch_size(), n_images);
        let batch = images.index_select(0, &Tensor::from_slice(&rows));
        let key = NoiseKey { seed: settings.seed, stream: Stream::PosteriorNoise, index: step, draw: 0 };
        let mut generator = key.generator();
        let mut noise = vec![0f32; settings.batch_size() * latent_shape.iter().product::<i64>() as usize];
        generator.fill_normal(&mut noise);
        let noise = Tensor::from_slice(&noise).reshape([-1, latent_shape[0], side, side]);
        // Art may be flipped and its colors exchanged: cheap variety for a vae.
        let batch = if step.is_multiple_of(2) { batch } else { batch.flip([3i64]) };
        let batch = if step.is_multiple_of(3) { batch.roll([(step % 9 / 3) as i64], [1i64]) } else { batch };
        let loss = vae_loss(&vae, &batch, &noise, 1e-3);
        loss.total.backward();
        loss.reconstruction
    };
    let mut averaged = settings.train(&trainable, backward, log)?;
    averaged.values_mut().for_each(|tensor| *tensor = tensor.to_kind(Kind::Half).to_kind(Kind::Float));
    save(&folder.join(WEIGHTS), &averaged, log)?;

    // Latents shall have unit standard deviation: the scaling factor of arXiv 2112.10752, appendix G.
    let weights = Weights::from_source(averaged, Role::Frozen, DType::F32, Device::Cpu);
    let vae = AutoencoderKl::new(weights.root(), VaeConfig { scaling_factor: 1.0, ..config }, DType::F32);
    built(weights, "vae")?;
    let mean = encode_in_parts(&vae, &images).mean;
    let decoded = tch::no_grad(|| vae.decode_raw(&mean.narrow(0, 0, 64)));
    let scaling_factor = 1.0 / mean.std(true).double_value(&[]);
    let path = folder.join("config.json");
    let mut written: Value = json::read(&path)?;
    written["scaling_factor"] = Value::from((scaling_factor * 1e5).round() / 1e5);
    json::write(&path, &written)?;
    let difference = (decoded - images.narrow(0, 0, 64)).abs().mean(Kind::Float).double_value(&[]);
    log(&format!(
        "scaling factor {scaling_factor:.5}; mean absolute difference {difference:.4} of the range -1..1"
    ));
    Ok(())
}

/// Starts the posterior's log variance at -4: a fresh encoder's latents would drown in noise of unit standard deviation.
fn start_with_little_noise(trainable: &[Trainable], latent_channels: i64) {
    let bias = trainable.iter().find(|parameter| parameter.name == "quant_conv.bias");
    if let Some(bias) = bias {
        tch::no_grad(|| {
            let _ = bias.tensor.narrow(0, latent_channels, latent_channels).fill_(-4.0);
        });
    }
}

/// Weight of each squared difference at a smaller size.
const COARSE_WEIGHT: f64 = 4.0;

/// The parts of a VAE's loss.
struct VaeLoss {
    /// What is minimized.
    total: Tensor,
    /// Mean absolute difference of pixels, in units of the range [-1, 1].
    reconstruction: f64,
}

/// Absolute difference of pixels and of their gradients, squared difference at half and quarter size, and a weak pull of
/// the posterior to the unit gaussian.
///
/// The gradients stand in for the perceptual network of arXiv 2112.10752: flat art lives by its edges. Squares at small
/// sizes make rare colors count: by absolute differences alone they stay at the commonest color for long.
///
/// # Shapes
/// `images` `[b, 3, H, W]` in [-1, 1]; `noise` `[b, c, h, w]` unit gaussian.
fn vae_loss(vae: &AutoencoderKl, images: &Tensor, noise: &Tensor, kl_weight: f64) -> VaeLoss {
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
