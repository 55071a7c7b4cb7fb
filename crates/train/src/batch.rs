//! Pairs as tensors, and the one place where winners and losers are joined and split.

use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::Tokens;
use tch::{Device, Kind, Tensor};

/// The images and captions of a pair set, encoded once.
///
/// # Shapes
/// Posteriors `[n_images, c, h, w]` f32 on the host, with mirror images `[2 n_images, c, h, w]`; captions
/// `[n_captions, ..]` and `empty`, one sample, on the device.
#[derive(Debug)]
pub struct EncodedPairs {
    /// Posteriors of the distinct images.
    pub images: Posterior,
    /// Whether each image's mirror image follows, at its row plus the number of images. Then [`EncodedPairs::batch`]
    /// takes one of the two at random, drawing for winner and loser on their own.
    pub mirrored: bool,
    /// Conditioning of the distinct captions.
    pub captions: Conditioning,
    /// Conditioning of the empty caption.
    pub empty: Conditioning,
    /// Token ids of the distinct captions, then of the empty one, where text encoders learn.
    pub tokens: Option<Tokens>,
    /// One entry per pair.
    pub pairs: Vec<EncodedPair>,
    /// What SDXL is told about the sizes of each pair, `[n_pairs, 6]`; `None` where its captions say all there is.
    pub sizes: Option<Tensor>,
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
    /// Token ids of each pair's caption, where text encoders learn.
    pub tokens: Option<Tokens>,
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

    /// Names a draw of each pair: what winner and loser share.
    pub fn pair_keys(&self, seed: u64, stream: Stream) -> Vec<NoiseKey> {
        self.keys.iter().map(|&(index, draw)| NoiseKey { seed, stream, index, draw }).collect()
    }

    /// Names a draw of each row: winner and loser draw for themselves.
    pub fn row_keys(&self, seed: u64, stream: Stream) -> Vec<NoiseKey> {
        row_keys(&self.keys, self.halves(), seed, stream)
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
        let keys: Vec<(u64, u64)> = uses.iter().map(|u| (pair(u).id, u.draw)).collect();
        let halves = if with_losers { 2 } else { 1 };
        if self.mirrored {
            let n_images = self.images.mean.size()[0] / 2;
            for (image, key) in images.iter_mut().zip(row_keys(&keys, halves, seed, Stream::Flip)) {
                *image += n_images * i64::from(key.generator().chance(0.5));
            }
        }
        let index = Tensor::from_slice(&images);
        let mean = self.images.mean.index_select(0, &index);
        let deviation = self.images.deviation.index_select(0, &index);
        let noise = gaussian(&row_keys(&keys, halves, seed, Stream::PosteriorNoise), &mean.size()[1..]);
        let captions: Vec<i64> = uses.iter().map(|u| pair(u).caption as i64).collect();
        let mut conditioning = self.conditioning(&captions, uses, device);
        if let Some(sizes) = &self.sizes {
            let rows: Vec<i64> = uses.iter().map(|u| u.index as i64).collect();
            conditioning.time_ids = Some(sizes.index_select(0, &Tensor::from_slice(&rows)).to_device(device));
        }
        let tokens = self.tokens.as_ref().map(|tokens| {
            // The empty caption follows the others.
            let empty = self.captions.len() as i64;
            let row = |(u, &caption): (&Use, &i64)| if u.drop_caption { empty } else { caption };
            let rows: Vec<i64> = uses.iter().zip(&captions).map(row).collect();
            tokens.select(&Tensor::from_slice(&rows).to_device(device))
        });
        Batch {
            tokens,
            latents: (mean + deviation * noise).to_device(device),
            conditioning: if with_losers { conditioning.twice() } else { conditioning },
            keys,
            with_losers,
        }
    }

    fn conditioning(&self, captions: &[i64], uses: &[Use], device: Device) -> Conditioning {
        let kept = self.captions.select(&Tensor::from_slice(captions).to_device(device));
        if !uses.iter().any(|u| u.drop_caption) {
            return kept;
        }
        // Row 0 of the joined table is the empty caption.
        let rows: Vec<i64> =
            uses.iter().zip(1..).map(|(u, row)| if u.drop_caption { 0 } else { row }).collect();
        self.empty.followed_by(&kept).select(&Tensor::from_slice(&rows).to_device(device))
    }
}

/// Winners draw under even repetition numbers, losers under odd ones.
fn row_keys(pairs: &[(u64, u64)], halves: usize, seed: u64, stream: Stream) -> Vec<NoiseKey> {
    let half = |half: u64| {
        pairs.iter().map(move |&(index, draw)| NoiseKey { seed, stream, index, draw: 2 * draw + half })
    };
    (0..halves as u64).flat_map(half).collect()
}

/// Reads a tensor of per-row errors to the host as f64.
pub fn to_host(errors: &Tensor) -> Vec<f64> {
    Vec::try_from(errors.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous())
        .expect("errors are a vector of f64")
}
