//! Pairs from pixels: decoded, cropped, flipped and encoded whenever they are used.

use image::RgbImage;
use tastemaker_data::ordered::in_order;
use tastemaker_data::transform::{Crop, Size};
use tastemaker_data::{DataError, PairId, PairSource, Side};
use tastemaker_diffusion::{Conditioning, Posterior, Vae};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_run::TimeIds;
use tastemaker_torch::tensors::{pixels, upload};
use tch::{Kind, Tensor};

use super::cached::{time_ids, time_ids_tensor};
use super::encode::encode;
use super::{
    Augmentation, Batch, BatchOptions, BatchParts, CropFlip, DecodedPair, EncodeSettings, LoadedBatch, Pairs,
    SkippedPair, Use, decode_pair,
};
use crate::TrainError;

/// Pairs that are encoded when they are used.
pub struct LivePairs<'a, C> {
    source: &'a dyn PairSource,
    vae: C,
    text: TextEncoders,
    settings: EncodeSettings,
    /// Micro-conditioning, for SDXL.
    time_ids: Option<TimeIds>,
}

/// The images of a pair, cropped, and SDXL's micro-conditioning.
type Pixels = (Vec<RgbImage>, [u32; 6]);

impl<'a, C: Vae> LivePairs<'a, C> {
    /// Over a source, by a VAE and text encoders; with micro-conditioning for SDXL.
    pub fn new(
        source: &'a dyn PairSource,
        vae: C,
        text: TextEncoders,
        settings: EncodeSettings,
        time_ids: Option<TimeIds>,
    ) -> Self {
        Self { source, vae, text, settings, time_ids }
    }

    /// The crop and flip drawn for one image of a pair.
    fn crop_flip(&self, augmentation: Augmentation, key: (u64, u64), side: Side) -> CropFlip {
        let rng = |stream| augmentation.image_key(stream, key, side).generator();
        let hflip = self.settings.random_hflip && rng(Stream::Flip).bernoulli(0.5);
        let crop = if self.settings.random_crop {
            let mut rng = rng(Stream::Crop);
            Crop::At(rng.uniform(), rng.uniform())
        } else {
            Crop::Center
        };
        CropFlip { crop, hflip }
    }

    fn pixels(&self, uses: &[Use], options: &BatchOptions) -> Vec<Result<Pixels, DataError>> {
        let (source, settings) = (self.source, &self.settings);
        let drawn: Vec<Vec<CropFlip>> = uses
            .iter()
            .map(|u| {
                let key = (self.id(u.index), u.draw);
                options.sides().iter().map(|&side| self.crop_flip(options.augmentation, key, side)).collect()
            })
            .collect();
        let kind = self.time_ids.unwrap_or_default();
        let work = |i: usize| {
            let decoded = decode_pair(source, uses[i].index, &settings.resolutions, options.sides())?;
            let sizes = time_ids(kind, decoded.sizes(drawn[i][0].crop), decoded.resolution);
            let DecodedPair { images, resolution } = &decoded;
            // Of a single image there is one, whatever is asked for.
            let images = images.iter().cycle().zip(&drawn[i]);
            Ok((images.map(|(image, drawn)| drawn.apply(image, *resolution)).collect(), sizes))
        };
        let mut results = Vec::with_capacity(uses.len());
        let n_workers = settings.n_workers.min(uses.len());
        let outcome: Result<(), ()> = in_order(0..uses.len(), n_workers, 2 * n_workers, work, |_, result| {
            results.push(result);
            Ok(())
        });
        debug_assert!(outcome.is_ok());
        results
    }

    fn posteriors(
        &self,
        images: &[&RgbImage],
        resolution: Size,
        pair_of: &[u64],
        options: &BatchOptions,
    ) -> Result<Posterior, TrainError> {
        let mut parts = Vec::new();
        let n = self.settings.vae_batch_size();
        for (some, pairs) in images.chunks(n).zip(pair_of.chunks(n)) {
            let pixels =
                pixels(some.iter().map(|image| image.as_raw().as_slice()), resolution, options.device);
            parts.push(encode(&self.vae, &pixels, pairs)?);
        }
        let join =
            |part: fn(&Posterior) -> &Tensor| Tensor::cat(&parts.iter().map(part).collect::<Vec<_>>(), 0);
        Ok(Posterior { mean: join(|p| &p.mean), std: join(|p| &p.std) })
    }

    fn conditioning(&self, captions: &[&str], sizes: &[[u32; 6]], options: &BatchOptions) -> Conditioning {
        let n = captions.len() as i64;
        let mut conditioning = match self.settings.trains_text {
            true => Conditioning::text(Tensor::zeros([n, 0, 0], (Kind::Float, options.device))),
            false => self.text.encode(captions, 0),
        };
        conditioning.time_ids = self.time_ids.map(|_| upload(&time_ids_tensor(sizes), options.device));
        conditioning
    }
}

impl<C: Vae> Pairs for LivePairs<'_, C> {
    fn id(&self, index: usize) -> u64 {
        self.source.id(index).0
    }

    fn resolution(&self, index: usize) -> Size {
        resolution_of(self.source, &self.settings, index)
    }

    fn batch(&self, uses: &[Use], options: &BatchOptions) -> Result<LoadedBatch, TrainError> {
        let mut skipped = Vec::new();
        let (mut pairs, mut images, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for (u, result) in uses.iter().zip(self.pixels(uses, options)) {
            match result {
                Ok((cropped, size)) => {
                    pairs.push(u);
                    images.push(cropped);
                    sizes.push(size);
                }
                Err(error) => {
                    let id = PairId(self.id(u.index));
                    let detail = error.skips().ok_or(error)?;
                    skipped.push(SkippedPair { id, place: self.source.place(id), detail });
                }
            }
        }
        let Some(first) = images.first() else { return Ok(LoadedBatch { batch: None, skipped }) };
        let resolution = first[0].dimensions();
        let keys: Vec<(u64, u64)> = pairs.iter().map(|u| (self.id(u.index), u.draw)).collect();
        let sides = 0..options.sides().len();
        let joined: Vec<&RgbImage> =
            sides.clone().flat_map(|side| images.iter().map(move |cropped| &cropped[side])).collect();
        let ids: Vec<u64> = sides.flat_map(|_| keys.iter().map(|key| key.0)).collect();
        let posteriors = self.posteriors(&joined, resolution, &ids, options)?;
        let caption = |u: &&Use| if u.drop_caption { "" } else { self.source.caption(u.index) };
        let captions: Vec<&str> = pairs.iter().map(caption).collect();
        let conditioning = self.conditioning(&captions, &sizes, options);
        let tokens = self.settings.trains_text.then(|| self.text.tokens(&captions));
        let batch = Batch::new(BatchParts { images: posteriors, conditioning, tokens, keys }, options);
        Ok(LoadedBatch { batch: Some(batch), skipped })
    }
}

/// The bucket resolution of a pair by the sizes of its images. What cannot be read is found out when it is decoded.
pub(super) fn resolution_of(source: &dyn PairSource, settings: &EncodeSettings, index: usize) -> Size {
    let size = |side| source.size(index, side).unwrap_or((1, 1));
    match settings.resolutions.buckets {
        Some(_) => settings.resolutions.of(size(Side::Winner), size(Side::Loser)),
        None => settings.resolutions.of((1, 1), (1, 1)),
    }
}
