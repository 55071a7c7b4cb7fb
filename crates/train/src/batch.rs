//! Pairs as tensors, and the one place where winners and losers are joined and split.

use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tch::{Device, Kind, Tensor};

/// The images and captions of a pair set, encoded once.
///
/// # Shapes
/// Posteriors `[n_images, c, h, w]` f32 on the host; captions `[n_captions, ..]`; `empty` is one sample.
#[derive(Debug)]
pub struct EncodedPairs {
    /// Posteriors of the distinct images.
    pub images: Posterior,
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

/// One use of one pair: which, and for the how-manieth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Index into [`EncodedPairs::pairs`].
    pub index: usize,
    /// Repetition; draws of the same pair under different repetitions are independent.
    pub draw: u64,
    /// Whether the caption is dropped.
    pub drop_caption: bool,
}

/// A micro-batch on the device: n pairs, or n winners where the objective does not look at losers.
#[derive(Debug)]
pub struct Batch {
    /// Winners, then losers, `[2n, c, h, w]` (or `[n, ..]`).
    pub latents: Tensor,
    /// Conditioning of each row of `latents`.
    pub conditioning: Conditioning,
    /// Identity and repetition of each pair.
    pub keys: Vec<(u64, u64)>,
    /// Whether losers are there.
    pub with_losers: bool,
}

impl Batch {
    /// Number of pairs.
    pub fn n_pairs(&self) -> usize {
        self.keys.len()
    }

    /// Images per pair: 2 with losers, 1 without.
    pub fn halves(&self) -> usize {
        if self.with_losers { 2 } else { 1 }
    }

    /// Repeats something known per pair for each row: winners, then losers.
    pub fn per_row<T: Copy>(&self, per_pair: &[T]) -> Vec<T> {
        per_pair.repeat(self.halves())
    }

    /// Repeats a tensor known per pair for each row.
    pub fn per_row_tensor(&self, per_pair: &Tensor) -> Tensor {
        if self.with_losers { Tensor::cat(&[per_pair, per_pair], 0) } else { per_pair.shallow_clone() }
    }

    /// Splits values known per row into (winner, loser); without losers the second is `None`.
    pub fn split(&self, per_row: &[f64]) -> Vec<(f64, Option<f64>)> {
        let n = self.n_pairs();
        (0..n).map(|i| (per_row[i], self.with_losers.then(|| per_row[n + i]))).collect()
    }

    /// Joins values known per (winner, loser) into one value per row; the inverse of [`Batch::split`].
    pub fn join(&self, per_pair: &[(f64, f64)]) -> Vec<f64> {
        let losers = per_pair.iter().map(|pair| pair.1).filter(|_| self.with_losers);
        per_pair.iter().map(|pair| pair.0).chain(losers).collect()
    }
}

impl EncodedPairs {
    /// Assembles a micro-batch on `device`. Latents are drawn from the posteriors, independently for winner and loser.
    pub fn batch(&self, uses: &[Use], seed: u64, with_losers: bool, device: Device) -> Batch {
        let pair = |u: &Use| self.pairs[u.index];
        let mut images: Vec<i64> = uses.iter().map(|u| pair(u).winner as i64).collect();
        if with_losers {
            images.extend(uses.iter().map(|u| pair(u).loser as i64));
        }
        let half = |offset: u64| {
            uses.iter().map(move |u| NoiseKey {
                seed,
                stream: Stream::PosteriorNoise,
                index: self.pairs[u.index].id,
                draw: 2 * u.draw + offset,
            })
        };
        let keys: Vec<NoiseKey> = if with_losers { half(0).chain(half(1)).collect() } else { half(0).collect() };
        let index = Tensor::from_slice(&images);
        let mean = self.images.mean.index_select(0, &index);
        let deviation = self.images.deviation.index_select(0, &index);
        let noise = gaussian(&keys, &mean.size()[1..]);
        let captions: Vec<i64> = uses.iter().map(|u| pair(u).caption as i64).collect();
        let conditioning = self.conditioning(&captions, uses, device);
        Batch {
            latents: (mean + deviation * noise).to_device(device),
            conditioning: if with_losers { conditioning.twice() } else { conditioning },
            keys: uses.iter().map(|u| (pair(u).id, u.draw)).collect(),
            with_losers,
        }
    }

    fn conditioning(&self, captions: &[i64], uses: &[Use], device: Device) -> Conditioning {
        if !uses.iter().any(|u| u.drop_caption) {
            return self.captions.select(&Tensor::from_slice(captions).to_device(device));
        }
        // Row 0 of the joined table is the empty caption.
        let rows: Vec<i64> =
            captions.iter().zip(uses).map(|(caption, u)| if u.drop_caption { 0 } else { caption + 1 }).collect();
        self.empty.followed_by(&self.captions).select(&Tensor::from_slice(&rows).to_device(device))
    }
}

/// Reads a tensor of per-row errors to the host as f64.
pub fn to_host(errors: &Tensor) -> Vec<f64> {
    Vec::try_from(errors.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous())
        .expect("errors are a vector of f64")
}
