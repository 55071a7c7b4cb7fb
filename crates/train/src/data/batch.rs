//! Pairs as tensors, and the one place where winners and losers are joined and split.

use tastemaker_data::Side;
use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::Tokens;
use tastemaker_torch::tensors::upload;
use tch::{Device, Kind, Tensor};

use super::{BatchOptions, FIRST_DRAW};
use crate::draws::Draws;

/// One use of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Index of the pair in its source.
    pub index: usize,
    /// Repetition; draws of the same pair under different repetitions are independent.
    pub draw: u64,
    /// Whether the caption is dropped.
    pub drop_caption: bool,
}

/// Random flips and crops of the images of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augmentation {
    /// Seed of every draw.
    pub seed: u64,
    /// Whether winner and loser share flips and crops.
    pub joint: bool,
}

impl Augmentation {
    /// Names a draw about one image of a pair; the same for both where they share it.
    pub(crate) fn image_key(self, stream: Stream, (index, draw): (u64, u64), side: Side) -> NoiseKey {
        let side = if self.joint { 0 } else { side as u64 };
        NoiseKey { seed: self.seed, stream, index, draw: 2 * draw + side }
    }
}

/// A micro-batch on the device: n pairs, or n winners where the objective has no use for losers.
#[derive(Debug)]
pub struct Batch {
    /// Winners, then losers, `[2n, c, h, w]` (or `[n, ..]`).
    pub latents: Tensor,
    /// Conditioning of each row of `latents`.
    pub conditioning: Conditioning,
    /// Token ids of each pair's caption, where text encoders are trained.
    pub tokens: Option<Tokens>,
    /// Identity and repetition of each pair.
    pub keys: Vec<(u64, u64)>,
    /// Whether losers are there.
    pub with_losers: bool,
    /// Whether it is the last of its rank in its step or validation.
    pub is_last: bool,
    /// Its levels and noise, where they were drawn beforehand.
    pub draws: Option<Draws>,
}

/// What a micro-batch is made of, before latents are drawn from the posteriors.
#[derive(Debug)]
pub(crate) struct BatchParts {
    /// Posteriors of winners, then losers, on the host.
    pub images: Posterior,
    /// Conditioning of each pair.
    pub conditioning: Conditioning,
    /// Token ids of each pair's caption, where text encoders are trained.
    pub tokens: Option<Tokens>,
    /// Identity and repetition of each pair.
    pub keys: Vec<(u64, u64)>,
}

impl Batch {
    /// Latents are drawn from the posteriors, for winner and loser independently.
    pub(crate) fn new(parts: BatchParts, options: &BatchOptions) -> Self {
        let BatchParts { images: Posterior { mean, std }, conditioning, tokens, keys } = parts;
        let with_losers = options.with_losers;
        let (n_sides, seed) = (options.sides().len(), options.augmentation.seed);
        let noise = gaussian(&row_keys(&keys, n_sides, seed, Stream::PosteriorNoise), &mean.size()[1..]);
        Self {
            latents: upload(&(mean + std * noise), options.device),
            conditioning: if with_losers { conditioning.twice() } else { conditioning },
            tokens,
            keys,
            with_losers,
            is_last: false,
            draws: None,
        }
    }

    /// Whether a step is made of it, and no validation.
    pub fn is_of_step(&self) -> bool {
        self.keys.iter().all(|&(_, draw)| draw < FIRST_DRAW)
    }

    /// Number of pairs.
    pub fn n_pairs(&self) -> usize {
        self.keys.len()
    }

    /// Images per pair: 2 with losers, 1 without.
    pub fn n_sides(&self) -> usize {
        if self.with_losers { 2 } else { 1 }
    }

    /// Names a draw of each pair: what winner and loser share.
    pub fn pair_keys(&self, seed: u64, stream: Stream) -> Vec<NoiseKey> {
        self.keys.iter().map(|&(index, draw)| NoiseKey { seed, stream, index, draw }).collect()
    }

    /// Names a draw of each row: winner and loser draw for themselves.
    pub fn row_keys(&self, seed: u64, stream: Stream) -> Vec<NoiseKey> {
        row_keys(&self.keys, self.n_sides(), seed, stream)
    }

    /// Repeats something known per pair for each row: winners, then losers.
    pub fn per_row<T: Copy>(&self, per_pair: &[T]) -> Vec<T> {
        per_pair.repeat(self.n_sides())
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

/// Winners draw under even repetition numbers, losers under odd ones.
fn row_keys(pairs: &[(u64, u64)], n_sides: usize, seed: u64, stream: Stream) -> Vec<NoiseKey> {
    let keys = |side: u64| {
        pairs.iter().map(move |&(index, draw)| NoiseKey { seed, stream, index, draw: 2 * draw + side })
    };
    (0..n_sides as u64).flat_map(keys).collect()
}

/// Reads a tensor of per-row errors to the host as f64.
pub fn to_host(errors: &Tensor) -> Vec<f64> {
    Vec::try_from(errors.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous())
        .expect("errors are a vector of f64")
}
