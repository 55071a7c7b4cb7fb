//! Pairs that are in memory, encoded.

use tastemaker_data::Side;
use tastemaker_data::transform::Size;
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tch::{Device, Tensor};

use super::{Made, Making, Pairs};
use crate::TrainError;
use crate::data::{Batch, Parts, Use};

/// The images and captions of a pair set in memory.
///
/// # Shapes
/// Posteriors `[n_images, c, h, w]` f32 on the host, with flipped images `[2 n_images, c, h, w]`; captions
/// `[n_captions, ..]` and `empty`, one sample, on the device.
#[derive(Debug)]
pub struct EncodedPairs {
    /// Posteriors of the distinct images.
    pub images: Posterior,
    /// Whether each image's flipped image follows, at its row plus the number of images. Then one of the two is taken at
    /// random.
    pub hflip: bool,
    /// Conditioning of the distinct captions.
    pub captions: Conditioning,
    /// Conditioning of the empty caption.
    pub empty: Conditioning,
    /// One entry per pair.
    pub pairs: Vec<EncodedPair>,
}

/// A pair as indices into [`EncodedPairs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedPair {
    /// Stable identity; random draws are keyed by it.
    pub id: u64,
    /// Index of the preferred image.
    pub winner: usize,
    /// Index of the other image.
    pub loser: usize,
    /// Index of the caption.
    pub caption: usize,
}

impl EncodedPairs {
    /// The batch of these pairs; nothing can be wrong with them.
    pub fn made(&self, uses: &[Use], making: &Making) -> Batch {
        let keys: Vec<(u64, u64)> = uses.iter().map(|u| (self.pairs[u.index].id, u.draw)).collect();
        let n_images = self.images.mean.size()[0] / 2;
        let mut images = Vec::with_capacity(2 * uses.len());
        for &side in making.sides() {
            for (u, &key) in uses.iter().zip(&keys) {
                let pair = self.pairs[u.index];
                let image = match side {
                    Side::Winner => pair.winner,
                    Side::Loser => pair.loser,
                } as i64;
                let flips = self.hflip
                    && making.augmentation.image_key(Stream::Flip, key, side).generator().bernoulli(0.5);
                images.push(if flips { image + n_images } else { image });
            }
        }
        let index = Tensor::from_slice(&images);
        let images = Posterior {
            mean: self.images.mean.index_select(0, &index),
            std: self.images.std.index_select(0, &index),
        };
        let conditioning = self.conditioning(uses, making.device);
        let parts = Parts { images, conditioning, tokens: None, keys };
        Batch::new(parts, making.augmentation.seed, making.with_losers, making.device)
    }

    fn conditioning(&self, uses: &[Use], device: Device) -> Conditioning {
        let captions: Vec<i64> = uses.iter().map(|u| self.pairs[u.index].caption as i64).collect();
        let kept = self.captions.select(&Tensor::from_slice(&captions).to_device(device));
        if !uses.iter().any(|u| u.drop_caption) {
            return kept;
        }
        // Row 0 of the joined table is the empty caption.
        let rows: Vec<i64> =
            uses.iter().zip(1..).map(|(u, row)| if u.drop_caption { 0 } else { row }).collect();
        self.empty.followed_by(&kept).select(&Tensor::from_slice(&rows).to_device(device))
    }
}

impl Pairs for EncodedPairs {
    fn id(&self, index: usize) -> u64 {
        self.pairs[index].id
    }

    fn resolution(&self, _: usize) -> Size {
        let size = self.images.mean.size();
        (size[3] as u32, size[2] as u32)
    }

    fn batch(&self, uses: &[Use], making: &Making) -> Result<Made, TrainError> {
        Ok(Made { batch: Some(self.made(uses, making)), skipped: Vec::new() })
    }
}
