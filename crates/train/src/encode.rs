//! From pairs on disk to latents and text embeddings, each computed once.
//!
//! Shapes: b images, side R, latents `[b, c, h, w]`.

use std::collections::HashMap;

use image::RgbImage;
use tastemaker_data::PairSource;
use tastemaker_data::transform::{Framing, to_chw, to_square};
use tastemaker_diffusion::{LatentCodec, Posterior};
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_run::TimeIds;
use tastemaker_store::checksum::sha256_bytes;
use tch::{Device, Tensor};

use crate::TrainError;
use crate::batch::{EncodedPair, EncodedPairs};

/// How pairs are encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodeSettings {
    /// Side of the square images, in pixels.
    pub resolution: u32,
    /// Images per forward pass of the codec.
    pub batch_size: usize,
    /// Whether mirror images are encoded, too, for random flips in training.
    pub flips: bool,
    /// What SDXL is told about sizes.
    pub time_ids: TimeIds,
    /// Whether token ids are kept, for text encoders that learn.
    pub keeps_tokens: bool,
    /// Where the codec is.
    pub device: Device,
}

/// How far encoding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Pairs read.
    pub n_pairs: usize,
    /// Distinct images among them.
    pub n_images: usize,
}

/// Encodes every pair of a source, in its order: the pair at position i is entry i of the result.
///
/// An image is encoded once however many pairs show it, judged by its pixels after cropping; so is a caption. `heard` is
/// told after each pair.
///
/// # Errors
/// [`TrainError::Data`] for an image that does not decode; [`TrainError::NonFiniteLatents`].
pub fn encode_pairs(
    source: &dyn PairSource,
    codec: &dyn LatentCodec,
    text: &TextEncoders,
    settings: &EncodeSettings,
    heard: &mut dyn FnMut(Encoded) -> Result<(), TrainError>,
) -> Result<EncodedPairs, TrainError> {
    let mut images = Images::new(codec, settings);
    let (mut captions, mut caption_index) = (Vec::new(), HashMap::new());
    let mut pairs = Vec::with_capacity(source.len());
    let mut sizes: Vec<f32> = Vec::new();
    for position in 0..source.len() {
        let pair = source.pair(position)?;
        let id = pair.id.0;
        let (winner, loser) = (images.index(&pair.winner, id)?, images.index(&pair.loser, id)?);
        let caption = *caption_index.entry(pair.caption).or_insert_with_key(|caption| {
            captions.push(caption.clone());
            captions.len() - 1
        });
        pairs.push(EncodedPair { id, winner, loser, caption });
        sizes.extend(time_ids(&pair.winner, settings.resolution));
        heard(Encoded { n_pairs: pairs.len(), n_images: images.index.len() })?;
    }
    let resolution = i64::from(settings.resolution);
    let tokens = settings.keeps_tokens.then(|| text.tokens(&captions).followed_by(&text.tokens(&[""])));
    let captions = text.encode(&captions, resolution);
    let told = settings.time_ids == TimeIds::Real && captions.time_ids.is_some();
    Ok(EncodedPairs {
        images: images.finish()?,
        mirrored: settings.flips,
        captions,
        empty: text.empty(resolution),
        tokens,
        sizes: told.then(|| Tensor::from_slice(&sizes).view([-1, 6])),
        pairs,
    })
}

/// Height and width as stored, rows and columns cut off at the top and the left, height and width of the square.
fn time_ids(image: &RgbImage, resolution: u32) -> [f32; 6] {
    let Framing { left, top, .. } = Framing::of(image.dimensions(), resolution);
    [image.height(), image.width(), top, left, resolution, resolution].map(|pixels| pixels as f32)
}

/// The distinct images so far; those not yet encoded wait for a full batch.
struct Images<'a> {
    codec: &'a dyn LatentCodec,
    settings: &'a EncodeSettings,
    index: HashMap<String, usize>,
    /// Pixels of waiting images, `[3, R, R]` each, with the first pair that shows each.
    waiting: Vec<(Vec<f32>, u64)>,
    upright: Vec<Posterior>,
    mirrored: Vec<Posterior>,
}

impl<'a> Images<'a> {
    fn new(codec: &'a dyn LatentCodec, settings: &'a EncodeSettings) -> Self {
        let (waiting, upright, mirrored) = (Vec::new(), Vec::new(), Vec::new());
        Self { codec, settings, index: HashMap::new(), waiting, upright, mirrored }
    }

    /// The row that an image has or will have.
    fn index(&mut self, image: &RgbImage, pair: u64) -> Result<usize, TrainError> {
        let square = to_square(image, self.settings.resolution);
        let next = self.index.len();
        let index = *self.index.entry(sha256_bytes(square.as_raw())).or_insert(next);
        if index == next {
            self.waiting.push((to_chw(&square), pair));
            if self.waiting.len() >= self.settings.batch_size {
                self.encode_waiting()?;
            }
        }
        Ok(index)
    }

    fn encode_waiting(&mut self) -> Result<(), TrainError> {
        let side = i64::from(self.settings.resolution);
        let values: Vec<f32> = self.waiting.iter().flat_map(|(pixels, _)| pixels).copied().collect();
        let upright =
            Tensor::from_slice(&values).reshape([-1, 3, side, side]).to_device(self.settings.device);
        let posterior = self.encode(&upright)?;
        self.upright.push(posterior);
        if self.settings.flips {
            let posterior = self.encode(&upright.flip([3i64]))?;
            self.mirrored.push(posterior);
        }
        self.waiting.clear();
        Ok(())
    }

    /// The posterior of the waiting images, on the host.
    fn encode(&self, images: &Tensor) -> Result<Posterior, TrainError> {
        let Posterior { mean, deviation } = tch::no_grad(|| self.codec.encode(images));
        let finite = (&mean + &deviation).isfinite().flatten(1, -1).all_dim(1, false); // [b]
        let finite = Vec::<bool>::try_from(finite.to_device(Device::Cpu)).expect("one flag per image");
        match finite.iter().position(|&finite| !finite) {
            Some(image) => Err(TrainError::NonFiniteLatents { pair: self.waiting[image].1 }),
            None => {
                let host = |tensor: Tensor| tensor.to_device(Device::Cpu).contiguous();
                Ok(Posterior { mean: host(mean), deviation: host(deviation) })
            }
        }
    }

    /// All posteriors in one table, mirror images behind the others.
    fn finish(mut self) -> Result<Posterior, TrainError> {
        if !self.waiting.is_empty() {
            self.encode_waiting()?;
        }
        let parts: Vec<&Posterior> = self.upright.iter().chain(&self.mirrored).collect();
        let joined = |part: fn(&Posterior) -> &Tensor| {
            Tensor::cat(&parts.iter().map(|posterior| part(posterior)).collect::<Vec<_>>(), 0)
        };
        Ok(Posterior { mean: joined(|p| &p.mean), deviation: joined(|p| &p.deviation) })
    }
}
