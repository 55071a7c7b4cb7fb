//! Pairs from pixels: decoded, cut, flipped and encoded whenever they are used.

use image::RgbImage;
use tastemaker_data::buckets::Frames;
use tastemaker_data::ordered::in_order;
use tastemaker_data::transform::{Crop, Size, to_chw};
use tastemaker_data::{DataError, Half, PairId, PairSource};
use tastemaker_diffusion::{Conditioning, LatentVae, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_run::TimeIds;
use tch::{Kind, Tensor};

use super::cached::{time_ids, time_ids_tensor};
use super::{Cut, Made, Making, Pairs, Seen, Unusable, see};
use crate::TrainError;
use crate::data::encode::encode;
use crate::data::{Batch, Chance, Parts, Use};

/// How pixels become batches.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// What images are cut to.
    pub frames: Frames,
    /// Whether they are flipped half of the time.
    pub flips: bool,
    /// Whether the part that is kept is drawn, too; else it is the middle.
    pub random_crop: bool,
    /// What is told about sizes, where the network is told anything.
    pub time_ids: Option<TimeIds>,
    /// Images per forward pass of the vae.
    pub batch_size: usize,
    /// Threads that decode.
    pub n_workers: usize,
}

/// Pairs that are encoded when they are used.
pub struct LivePairs<'a, C> {
    source: &'a dyn PairSource,
    vae: C,
    text: TextEncoders,
    /// Whether the run's own text encoders learn: then tokens are given, not embeddings.
    text_learns: bool,
    settings: LiveSettings,
}

/// The images of a pair, cut, and what is told about sizes.
type Pixels = (Vec<RgbImage>, [u32; 6]);

impl<'a, C: LatentVae> LivePairs<'a, C> {
    /// Over a source, by a VAE and text encoders.
    pub fn new(
        source: &'a dyn PairSource,
        vae: C,
        text: TextEncoders,
        text_learns: bool,
        settings: LiveSettings,
    ) -> Self {
        Self { source, vae, text, text_learns, settings }
    }

    /// How chance cuts one image of a pair.
    fn cut(&self, chance: Chance, key: (u64, u64), half: Half) -> Cut {
        let draw = |stream| chance.image_key(stream, key, half).generator();
        let flipped = self.settings.flips && draw(Stream::Flip).chance(0.5);
        let crop = if self.settings.random_crop {
            let mut shares = draw(Stream::Crop);
            Crop::At(shares.uniform(), shares.uniform())
        } else {
            Crop::Center
        };
        Cut { crop, flipped }
    }

    /// The images of each pair, cut, with what is told about sizes.
    fn pixels(&self, uses: &[Use], making: &Making) -> Vec<Result<Pixels, DataError>> {
        let (source, settings) = (self.source, &self.settings);
        let cuts: Vec<Vec<Cut>> = uses
            .iter()
            .map(|u| {
                let key = (self.id(u.index), u.draw);
                making.halves().iter().map(|&half| self.cut(making.chance, key, half)).collect()
            })
            .collect();
        let kind = settings.time_ids.unwrap_or_default();
        let work = |i: usize| {
            let seen = see(source, uses[i].index, &settings.frames, making.halves())?;
            let sizes = time_ids(kind, seen.sizes(cuts[i][0].crop), seen.frame);
            let Seen { images, frame } = &seen;
            // Of a single image there is one, whatever is asked for.
            let images = images.iter().cycle().zip(&cuts[i]);
            Ok((images.map(|(image, cut)| cut.of(image, *frame)).collect(), sizes))
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
        frame: Size,
        pair_of: &[u64],
        making: &Making,
    ) -> Result<Posterior, TrainError> {
        let mut parts = Vec::new();
        for (some, pairs) in
            images.chunks(self.settings.batch_size).zip(pair_of.chunks(self.settings.batch_size))
        {
            let pixels: Vec<f32> = some.iter().flat_map(|image| to_chw(image)).collect();
            let (w, h) = (i64::from(frame.0), i64::from(frame.1));
            let pixels = Tensor::from_slice(&pixels).reshape([-1, 3, h, w]).to_device(making.device);
            parts.push(encode(&self.vae, &pixels, pairs)?);
        }
        let join =
            |part: fn(&Posterior) -> &Tensor| Tensor::cat(&parts.iter().map(part).collect::<Vec<_>>(), 0);
        Ok(Posterior { mean: join(|p| &p.mean), deviation: join(|p| &p.deviation) })
    }

    fn conditioning(&self, captions: &[&str], sizes: &[[u32; 6]], making: &Making) -> Conditioning {
        let n = captions.len() as i64;
        let mut conditioning = match self.text_learns {
            true => Conditioning::text(Tensor::zeros([n, 0, 0], (Kind::Float, making.device))),
            false => self.text.encode(captions, 0),
        };
        conditioning.time_ids =
            self.settings.time_ids.map(|_| time_ids_tensor(sizes).to_device(making.device));
        conditioning
    }
}

impl<C: LatentVae> Pairs for LivePairs<'_, C> {
    fn id(&self, index: usize) -> u64 {
        self.source.id(index).0
    }

    fn frame(&self, index: usize) -> Size {
        let size = |half| self.source.size(index, half).unwrap_or((1, 1));
        match self.settings.frames.buckets {
            // What cannot be read is found out when it is decoded.
            Some(_) => self.settings.frames.of(size(Half::Winner), size(Half::Loser)),
            None => self.settings.frames.of((1, 1), (1, 1)),
        }
    }

    fn batch(&self, uses: &[Use], making: &Making) -> Result<Made, TrainError> {
        let mut skipped = Vec::new();
        let (mut pairs, mut images, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for (u, result) in uses.iter().zip(self.pixels(uses, making)) {
            match result {
                Ok((cut, told)) => {
                    pairs.push(u);
                    images.push(cut);
                    sizes.push(told);
                }
                Err(error) => {
                    let id = PairId(self.id(u.index));
                    let detail = error.skips().ok_or(error)?;
                    skipped.push(Unusable { id, place: self.source.place(id), detail });
                }
            }
        }
        let Some(first) = images.first() else { return Ok(Made { batch: None, skipped }) };
        let frame = first[0].dimensions();
        let keys: Vec<(u64, u64)> = pairs.iter().map(|u| (self.id(u.index), u.draw)).collect();
        let halves = 0..making.halves().len();
        let joined: Vec<&RgbImage> =
            halves.clone().flat_map(|half| images.iter().map(move |cut| &cut[half])).collect();
        let ids: Vec<u64> = halves.flat_map(|_| keys.iter().map(|key| key.0)).collect();
        let posteriors = self.posteriors(&joined, frame, &ids, making)?;
        let caption = |u: &&Use| if u.drop_caption { "" } else { self.source.caption(u.index) };
        let captions: Vec<&str> = pairs.iter().map(caption).collect();
        let conditioning = self.conditioning(&captions, &sizes, making);
        let tokens = self.text_learns.then(|| self.text.tokens(&captions));
        let parts = Parts { images: posteriors, conditioning, tokens, keys };
        let batch = Batch::new(parts, making.chance.seed, making.with_losers, making.device);
        Ok(Made { batch: Some(batch), skipped })
    }
}
