//! Pairs in a cache on disk, read row by row when they are used.

use std::sync::OnceLock;

use tastemaker_data::cache::{
    CAPTIONS_PER_SHARD, CacheFolder, CachedPair, Embedding, Key, PAIRS_PER_SHARD, PairLayout, PairOutline,
    PairShard, Row, Stored, TextLayout, TextShard,
};
use tastemaker_data::transform::Size;
use tastemaker_data::{DataError, PairId, PairSource, Side};
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_math::keyed::Stream;
use tastemaker_models::pipeline::Tokens;
use tastemaker_run::TimeIds;
use tastemaker_torch::kind_of;
use tastemaker_torch::tensors::upload;
use tch::{Kind, Tensor};

use super::{Batch, BatchOptions, BatchParts, LoadedBatch, Pairs, SkippedPair, Use};
use crate::TrainError;

/// The pairs of a whole cache. A shard is opened, and its head checked, when a row of it is first wanted.
#[derive(Debug)]
pub struct CachedPairs {
    folder: CacheFolder,
    key: Key,
    shapes: EncodedShapes,
    /// What the index says of the pairs.
    outlines: Vec<PairOutline>,
    pairs: Vec<OnceLock<PairShard>>,
    /// None where text encoders are trained.
    text: Vec<OnceLock<TextShard>>,
    /// Tokens of a caption, where all have as many: as in the shard that was opened first.
    n_tokens: OnceLock<usize>,
    /// Token ids of the distinct captions, then of the empty one, where text encoders are trained.
    tokens: Option<Tokens>,
    ids: Vec<u64>,
    /// Number of distinct captions; that of the empty one.
    n_captions: usize,
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
    /// Whether captions have as many tokens as they need.
    pub has_lengths: bool,
    /// Width of its pooled embedding, for SDXL.
    pub pooled: Option<usize>,
}

impl CachedPairs {
    /// The pairs of a whole cache of `source`, whose shards are held against what the model needs as they are opened.
    ///
    /// # Errors
    /// [`TrainError::Data`] for an index that does not go with the source.
    pub fn open(
        folder: &CacheFolder,
        key: &Key,
        source: &dyn PairSource,
        n_captions: usize,
        shapes: EncodedShapes,
        conditioning: CacheConditioning,
    ) -> Result<Self, TrainError> {
        let n_pairs = source.len();
        let known = key.images.all();
        let outline = |number: usize| {
            let outline = folder.outline(number)?;
            let fits = outline.resolutions.len() == in_shard(number, n_pairs, PAIRS_PER_SHARD)
                && outline.resolutions.iter().flatten().all(|resolution| known.contains(resolution));
            let what = || format!("the pairs of shard {number}, which are not those of this set");
            let damaged = || DataError::DamagedCache { path: folder.path().to_owned(), what: what() };
            fits.then_some(outline).ok_or_else(damaged)
        };
        let outlines = (0..n_pairs.div_ceil(PAIRS_PER_SHARD)).map(outline).collect::<Result<Vec<_>, _>>()?;
        let n_encoded = if key.text.is_some() { n_captions + 1 } else { 0 };
        let CacheConditioning { time_ids, tokens } = conditioning;
        Ok(Self {
            folder: folder.clone(),
            key: key.clone(),
            shapes,
            pairs: outlines.iter().map(|_| OnceLock::new()).collect(),
            outlines,
            text: (0..n_encoded.div_ceil(CAPTIONS_PER_SHARD)).map(|_| OnceLock::new()).collect(),
            n_tokens: OnceLock::new(),
            tokens,
            ids: (0..n_pairs).map(|position| source.id(position).0).collect(),
            n_captions,
            time_ids,
        })
    }

    fn pair_shard(&self, number: usize) -> Result<&PairShard, DataError> {
        once(&self.pairs[number], || {
            let EncodedShapes { channels, downsampling, .. } = self.shapes;
            let n_pairs = in_shard(number, self.ids.len(), PAIRS_PER_SHARD);
            let (key, n_captions) = (&self.key, self.n_captions);
            self.folder.pair_shard(number, &PairLayout { key, n_pairs, n_captions, channels, downsampling })
        })
    }

    /// The shard of a caption, where captions are cached.
    fn text_shard(&self, number: usize) -> Result<&TextShard, DataError> {
        once(&self.text[number], || {
            let EncodedShapes { width, has_lengths, pooled, .. } = self.shapes;
            let n_captions = in_shard(number, self.n_captions + 1, CAPTIONS_PER_SHARD);
            let dtype = self.key.text.as_ref().map_or_else(Default::default, |text| text.dtype);
            let layout = TextLayout { n_captions, dtype, width, has_lengths, pooled };
            let shard = self.folder.text_shard(number, &layout)?;
            let n_tokens = *self.n_tokens.get_or_init(|| shard.n_tokens());
            if has_lengths || shard.n_tokens() == n_tokens {
                return Ok(shard);
            }
            let what = format!("its captions have {} tokens, others {n_tokens}", shard.n_tokens());
            Err(DataError::DamagedCache { path: shard.path().to_owned(), what })
        })
    }

    /// Whether the pair at a position is there.
    pub fn has(&self, index: usize) -> bool {
        self.known_resolution(index).is_some()
    }

    /// Pairs that were skipped when the cache was made, with their positions.
    pub fn skipped<'a>(
        &'a self,
        source: &'a dyn PairSource,
    ) -> impl Iterator<Item = (usize, SkippedPair)> + 'a {
        self.outlines.iter().enumerate().flat_map(move |(number, outline)| {
            outline.skipped.iter().map(move |(at, detail)| {
                let position = number * PAIRS_PER_SHARD + at;
                let id = PairId(self.ids[position]);
                (position, SkippedPair { id, place: source.place(id), detail: detail.clone() })
            })
        })
    }

    fn known_resolution(&self, index: usize) -> Option<Size> {
        self.outlines[index / PAIRS_PER_SHARD].resolutions[index % PAIRS_PER_SHARD]
    }

    fn entry(&self, index: usize) -> Result<Option<CachedPair>, DataError> {
        Ok(self.pair_shard(index / PAIRS_PER_SHARD)?.pairs()[index % PAIRS_PER_SHARD])
    }

    /// The row of an image that a batch has, and whether it is the flipped one.
    fn row(&self, pair: CachedPair, key: (u64, u64), side: Side, options: &BatchOptions) -> (Row, bool) {
        let number = match side {
            Side::Winner => pair.winner,
            Side::Loser => pair.loser,
        };
        let mut rng = options.augmentation.image_key(Stream::Flip, key, side).generator();
        (Row { resolution: pair.resolution, number }, self.key.hflip && rng.bernoulli(0.5))
    }

    fn caption_number(&self, u: &Use, pair: CachedPair) -> usize {
        if u.drop_caption { self.n_captions } else { pair.caption as usize }
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
                let (row, hflip) = self.row(*pair, key, side, options);
                stored.push(self.pair_shard(u.index / PAIRS_PER_SHARD)?.image(row, hflip)?);
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
        let mut conditioning = match &self.key.text {
            // Encoders that are trained encode in each step.
            None => Conditioning::text(Tensor::zeros([n, 0, 0], (Kind::Float, options.device))),
            Some(text) => {
                let mut hidden = Vec::new();
                let mut pooled = Vec::new();
                for (u, pair) in uses {
                    let number = self.caption_number(u, *pair);
                    let shard = self.text_shard(number / CAPTIONS_PER_SHARD)?;
                    let (one, two) = shard.caption(number % CAPTIONS_PER_SHARD)?;
                    hidden.push(one);
                    pooled.extend(two);
                }
                let kind = kind_of(text.dtype);
                let tensors = |parts: &[Embedding]| -> Vec<Tensor> {
                    parts.iter().map(|part| tensor(part, kind)).collect()
                };
                let joined = |parts: &[Embedding]| Tensor::stack(&tensors(parts), 0);
                let text = match self.shapes.has_lengths {
                    true => Conditioning::of_lengths(&tensors(&hidden)),
                    false => Conditioning::text(joined(&hidden)),
                };
                let pooled = (!pooled.is_empty()).then(|| upload(&joined(&pooled), options.device));
                Conditioning { hidden: upload(&text.hidden, options.device), pooled, ..text }
            }
        };
        conditioning.time_ids = self.time_ids.map(|kind| {
            let rows: Vec<[u32; 6]> =
                uses.iter().map(|(_, pair)| time_ids(kind, pair.sizes, pair.resolution)).collect();
            upload(&time_ids_tensor(&rows), options.device)
        });
        Ok(conditioning)
    }
}

impl Pairs for CachedPairs {
    fn id(&self, index: usize) -> u64 {
        self.ids[index]
    }

    fn resolution(&self, index: usize) -> Size {
        self.known_resolution(index).unwrap_or((0, 0))
    }

    fn read_ahead(&self, uses: &[Use], options: &BatchOptions) {
        for u in uses {
            // What is wrong shows when it is read.
            let Ok(Some(pair)) = self.entry(u.index) else { continue };
            let key = (self.ids[u.index], u.draw);
            let Ok(shard) = self.pair_shard(u.index / PAIRS_PER_SHARD) else { continue };
            for &side in options.sides() {
                let (row, hflip) = self.row(pair, key, side, options);
                shard.read_ahead(row, hflip);
            }
            let number = self.caption_number(u, pair);
            if self.key.text.is_some()
                && let Ok(text) = self.text_shard(number / CAPTIONS_PER_SHARD)
            {
                text.read_ahead(number % CAPTIONS_PER_SHARD);
            }
        }
    }

    fn batch(&self, uses: &[Use], options: &BatchOptions) -> Result<LoadedBatch, TrainError> {
        let entries = uses.iter().map(|u| Ok(self.entry(u.index)?.map(|pair| (u, pair))));
        let there: Vec<(&Use, CachedPair)> =
            entries.filter_map(Result::transpose).collect::<Result<_, DataError>>()?;
        if there.is_empty() {
            return Ok(LoadedBatch { batch: None, skipped: Vec::new() });
        }
        let keys: Vec<(u64, u64)> = there.iter().map(|(u, _)| (self.ids[u.index], u.draw)).collect();
        let images = self.images(&there, &keys, options)?;
        let conditioning = self.conditioning(&there, options)?;
        let tokens = self.tokens.as_ref().map(|tokens| {
            let rows: Vec<i64> = there.iter().map(|&(u, pair)| self.caption_number(u, pair) as i64).collect();
            tokens.select(&upload(&Tensor::from_slice(&rows), options.device))
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
    let bytes = rows.iter().map(|row| part(row).as_slice()).collect::<Vec<_>>().concat();
    let shape = rows[0].shape.map(|n| n as i64);
    let size = [&[rows.len() as i64], shape.as_slice()].concat();
    Tensor::from_data_size(&bytes, &size, kind_of(rows[0].dtype)).to_kind(Kind::Float)
}

fn tensor((shape, bytes): &Embedding, kind: Kind) -> Tensor {
    let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Tensor::from_data_size(bytes, &size, kind)
}

/// How many of `n` are in part `number`, where each has `most` and the last the rest.
fn in_shard(number: usize, n: usize, most: usize) -> usize {
    n.saturating_sub(number * most).min(most)
}

/// What is there, or is opened now.
fn once<T>(cell: &OnceLock<T>, open: impl FnOnce() -> Result<T, DataError>) -> Result<&T, DataError> {
    match cell.get() {
        Some(there) => Ok(there),
        None => {
            let opened = open()?;
            Ok(cell.get_or_init(|| opened))
        }
    }
}
