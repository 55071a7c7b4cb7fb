//! Pairs in a cache on disk, read row by row when they are used.

use tastemaker_data::cache::{
    CAPTIONS_PER_SHARD, CacheFolder, CachedPair, Embedding, Key, PAIRS_PER_SHARD, PairLayout, PairShard, Row,
    Stored, TextLayout, TextShard,
};
use tastemaker_data::transform::Size;
use tastemaker_data::{DataError, PairId, PairSource, Side};
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::Tokens;
use tastemaker_run::TimeIds;
use tastemaker_torch::kind_of;
use tch::{Kind, Tensor};

use super::{Batch, BatchOptions, BatchParts, LoadedBatch, Pairs, SkippedPair, Use};
use crate::TrainError;

/// The pairs of a whole cache.
#[derive(Debug)]
pub struct CachedPairs {
    shards: Vec<PairShard>,
    /// `None` where text encoders are trained.
    text: Option<Vec<TextShard>>,
    /// Token ids of the distinct captions, then of the empty one, where text encoders are trained.
    tokens: Option<Tokens>,
    ids: Vec<u64>,
    /// Number of distinct captions; that of the empty one.
    n_captions: usize,
    hflip: bool,
    /// Micro-conditioning, for SDXL.
    time_ids: Option<TimeIds>,
}

/// Conditioning that a cache does not hold.
#[derive(Debug)]
pub struct CacheConditioning {
    /// Micro-conditioning, for SDXL.
    pub time_ids: Option<TimeIds>,
    /// Token ids of the distinct captions, then of the empty one, where text encoders are trained.
    pub tokens: Option<Tokens>,
}

/// What latents and embeddings of a model look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedShapes {
    /// Channels of a latent.
    pub channels: usize,
    /// Image pixels per latent pixel, along one side.
    pub downsampling: usize,
    /// Width of a caption's hidden states.
    pub width: usize,
    /// Width of its pooled embedding, for SDXL.
    pub pooled: Option<usize>,
}

impl CachedPairs {
    /// Opens the shards of a whole cache of `source`, and holds them against what the model needs.
    ///
    /// # Errors
    /// [`TrainError::Data`] for shards that are missing or not what was written.
    pub fn open(
        folder: &CacheFolder,
        key: &Key,
        source: &dyn PairSource,
        n_captions: usize,
        shapes: EncodedShapes,
        conditioning: CacheConditioning,
    ) -> Result<Self, TrainError> {
        let EncodedShapes { channels, downsampling, width, pooled } = shapes;
        let n_pairs = source.len();
        let shards: Result<Vec<PairShard>, DataError> = (0..n_pairs.div_ceil(PAIRS_PER_SHARD))
            .map(|number| {
                let n_pairs = (n_pairs - number * PAIRS_PER_SHARD).min(PAIRS_PER_SHARD);
                folder.pair_shard(number, &PairLayout { key, n_pairs, n_captions, channels, downsampling })
            })
            .collect();
        let text = key.text.as_ref().map(|text| {
            let n_encoded = n_captions + 1;
            let shard = |number: usize| {
                let n_captions = (n_encoded - number * CAPTIONS_PER_SHARD).min(CAPTIONS_PER_SHARD);
                folder.text_shard(number, &TextLayout { n_captions, dtype: text.dtype, width, pooled })
            };
            (0..n_encoded.div_ceil(CAPTIONS_PER_SHARD)).map(shard).collect::<Result<Vec<_>, _>>()
        });
        let text = text.transpose()?;
        let n_tokens = text.iter().flatten().map(TextShard::n_tokens).next();
        if let Some(other) = text.iter().flatten().find(|shard| Some(shard.n_tokens()) != n_tokens) {
            let what = format!("its captions have {} tokens, unlike those of the first", other.n_tokens());
            return Err(DataError::DamagedCache { path: other.path().to_owned(), what }.into());
        }
        let CacheConditioning { time_ids, tokens } = conditioning;
        Ok(Self {
            shards: shards?,
            text,
            tokens,
            ids: (0..n_pairs).map(|position| source.id(position).0).collect(),
            n_captions,
            hflip: key.hflip,
            time_ids,
        })
    }

    /// Whether the pair at a position is there.
    pub fn has(&self, index: usize) -> bool {
        self.entry(index).is_some()
    }

    /// Pairs that were skipped when the cache was made, with their positions.
    pub fn skipped<'a>(
        &'a self,
        source: &'a dyn PairSource,
    ) -> impl Iterator<Item = (usize, SkippedPair)> + 'a {
        self.shards.iter().enumerate().flat_map(move |(number, shard)| {
            shard.skipped().iter().map(move |(at, detail)| {
                let position = number * PAIRS_PER_SHARD + at;
                let id = PairId(self.ids[position]);
                (position, SkippedPair { id, place: source.place(id), detail: detail.clone() })
            })
        })
    }

    fn entry(&self, index: usize) -> Option<CachedPair> {
        self.shards[index / PAIRS_PER_SHARD].pairs()[index % PAIRS_PER_SHARD]
    }

    fn images(
        &self,
        uses: &[(&Use, CachedPair)],
        keys: &[(u64, u64)],
        options: &BatchOptions,
    ) -> Result<Posterior, TrainError> {
        let mut stored = Vec::with_capacity(2 * uses.len());
        for &side in options.sides() {
            for ((u, pair), &key) in uses.iter().zip(keys) {
                let number = match side {
                    Side::Winner => pair.winner,
                    Side::Loser => pair.loser,
                };
                let mut rng = options.augmentation.image_key(Stream::Flip, key, side).generator();
                let shard = &self.shards[u.index / PAIRS_PER_SHARD];
                stored.push(
                    shard.image(
                        Row { resolution: pair.resolution, number },
                        self.hflip && rng.bernoulli(0.5),
                    )?,
                );
            }
        }
        Ok(Posterior { mean: stack(&stored, |row| &row.mean), std: stack(&stored, |row| &row.std) })
    }

    fn conditioning(
        &self,
        uses: &[(&Use, CachedPair)],
        options: &BatchOptions,
    ) -> Result<Conditioning, TrainError> {
        let n = uses.len() as i64;
        let mut conditioning = match &self.text {
            // Encoders that are trained encode in each step.
            None => Conditioning::text(Tensor::zeros([n, 0, 0], (Kind::Float, options.device))),
            Some(text) => {
                let mut hidden = Vec::new();
                let mut pooled = Vec::new();
                for (u, pair) in uses {
                    let number = if u.drop_caption { self.n_captions } else { pair.caption as usize };
                    let (one, two) =
                        text[number / CAPTIONS_PER_SHARD].caption(number % CAPTIONS_PER_SHARD)?;
                    hidden.push(one);
                    pooled.extend(two);
                }
                let kind = kind_of(text[0].dtype());
                let join = |parts: &[Embedding]| join(parts, kind).to_device(options.device);
                let (hidden, pooled) = (join(&hidden), (!pooled.is_empty()).then(|| join(&pooled)));
                Conditioning { hidden, pooled, time_ids: None }
            }
        };
        conditioning.time_ids = self.time_ids.map(|kind| {
            let rows: Vec<[u32; 6]> =
                uses.iter().map(|(_, pair)| time_ids(kind, pair.sizes, pair.resolution)).collect();
            time_ids_tensor(&rows).to_device(options.device)
        });
        Ok(conditioning)
    }
}

impl Pairs for CachedPairs {
    fn id(&self, index: usize) -> u64 {
        self.ids[index]
    }

    fn resolution(&self, index: usize) -> Size {
        self.entry(index).map_or((0, 0), |pair| pair.resolution)
    }

    fn batch(&self, uses: &[Use], options: &BatchOptions) -> Result<LoadedBatch, TrainError> {
        let there: Vec<(&Use, CachedPair)> =
            uses.iter().filter_map(|u| Some((u, self.entry(u.index)?))).collect();
        if there.is_empty() {
            return Ok(LoadedBatch { batch: None, skipped: Vec::new() });
        }
        let keys: Vec<(u64, u64)> = there.iter().map(|(u, _)| (self.ids[u.index], u.draw)).collect();
        let images = self.images(&there, &keys, options)?;
        let conditioning = self.conditioning(&there, options)?;
        let tokens = self.tokens.as_ref().map(|tokens| {
            let number = |(u, pair): &(&Use, CachedPair)| match u.drop_caption {
                true => self.n_captions as i64,
                false => i64::from(pair.caption),
            };
            let rows: Vec<i64> = there.iter().map(number).collect();
            tokens.select(&Tensor::from_slice(&rows).to_device(options.device))
        });
        let batch = Batch::new(BatchParts { images, conditioning, tokens, keys }, options);
        Ok(LoadedBatch { batch: Some(batch), skipped: Vec::new() })
    }
}

/// SDXL's micro-conditioning: original height and width, top and left of the crop, target height and width.
pub(super) fn time_ids(kind: TimeIds, [height, width, top, left]: [u32; 4], resolution: Size) -> [u32; 6] {
    match kind {
        TimeIds::Constant => [resolution.1, resolution.0, 0, 0, resolution.1, resolution.0],
        TimeIds::Real => [height, width, top, left, resolution.1, resolution.0],
    }
}

pub(super) fn time_ids_tensor(rows: &[[u32; 6]]) -> Tensor {
    let numbers: Vec<f32> = rows.iter().flatten().map(|&pixels| pixels as f32).collect();
    Tensor::from_slice(&numbers).view([-1, 6])
}

/// One part of every row, `[rows, c, h, w]` f32. All rows of a batch are of one resolution.
fn stack(rows: &[Stored], part: impl Fn(&Stored) -> &Vec<u8>) -> Tensor {
    let bytes: Vec<u8> = rows.iter().flat_map(part).copied().collect();
    let shape = rows[0].shape.map(|n| n as i64);
    let size = [&[rows.len() as i64], shape.as_slice()].concat();
    Tensor::from_data_size(&bytes, &size, kind_of(rows[0].dtype)).to_kind(Kind::Float)
}

fn join(parts: &[Embedding], kind: Kind) -> Tensor {
    let bytes: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let shape = parts[0].0.iter().map(|&n| n as i64);
    let size: Vec<i64> = [parts.len() as i64].into_iter().chain(shape).collect();
    Tensor::from_data_size(&bytes, &size, kind)
}
