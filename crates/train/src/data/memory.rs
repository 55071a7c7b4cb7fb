//! Pairs that are in memory, encoded.

use tastemaker_data::Side;
use tastemaker_data::transform::Size;
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_torch::tensors::upload;
use tch::{Device, Tensor};

use super::{Batch, BatchOptions, BatchParts, LoadedBatch, Pairs, Use};
use crate::TrainError;

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
    pub fn batch_of(&self, uses: &[Use], options: &BatchOptions) -> Batch {
        let keys: Vec<(u64, u64)> = uses.iter().map(|u| (self.pairs[u.index].id, u.draw)).collect();
        let n_images = self.images.mean.size()[0] / 2;
        let mut images = Vec::with_capacity(2 * uses.len());
        for &side in options.sides() {
            for (u, &key) in uses.iter().zip(&keys) {
                let pair = self.pairs[u.index];
                let image = match side {
                    Side::Winner => pair.winner,
                    Side::Loser => pair.loser,
                } as i64;
                let mut rng = options.augmentation.image_key(Stream::Flip, key, side).generator();
                images.push(if self.hflip && rng.bernoulli(0.5) { image + n_images } else { image });
            }
        }
        let index = Tensor::from_slice(&images);
        let images = Posterior {
            mean: self.images.mean.index_select(0, &index),
            std: self.images.std.index_select(0, &index),
        };
        let conditioning = self.conditioning(uses, options.device);
        Batch::new(BatchParts { images, conditioning, tokens: None, keys }, options)
    }

    fn conditioning(&self, uses: &[Use], device: Device) -> Conditioning {
        let captions: Vec<i64> = uses.iter().map(|u| self.pairs[u.index].caption as i64).collect();
        let kept = self.captions.select(&upload(&Tensor::from_slice(&captions), device));
        if !uses.iter().any(|u| u.drop_caption) {
            return kept;
        }
        // Row 0 of the joined table is the empty caption.
        let rows: Vec<i64> =
            uses.iter().zip(1..).map(|(u, row)| if u.drop_caption { 0 } else { row }).collect();
        self.empty.followed_by(&kept).select(&upload(&Tensor::from_slice(&rows), device))
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

    fn batch(&self, uses: &[Use], options: &BatchOptions) -> Result<LoadedBatch, TrainError> {
        Ok(LoadedBatch { batch: Some(self.batch_of(uses, options)), skipped: Vec::new() })
    }
}
