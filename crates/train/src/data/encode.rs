//! Making a cache: every image and every caption of a set, encoded once.
//!
//! Shapes: m orientations, latents `[c, h, w]`.

use std::collections::HashMap;
use std::ops::Range;

use image::RgbImage;
use tastemaker_data::buckets::BucketResolutions;
use tastemaker_data::cache::{
    CAPTIONS_PER_SHARD, CacheFolder, CachedPair, EncodedText, Key, PAIRS_PER_SHARD, PairShardDraft,
    ShardKind, text_shard,
};
use tastemaker_data::ordered::in_order;
use tastemaker_data::transform::Size;
use tastemaker_data::{PairSource, Side};
use tastemaker_diffusion::{Posterior, Vae};
use tastemaker_models::pipeline::TextEncoders;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tastemaker_torch::tensors::pixels;
use tch::{Device, Tensor};

use super::{CropFlip, Rank, decode_pair};
use crate::TrainError;

/// The distinct captions of a source in order of first use, and the number of each pair's.
#[derive(Debug)]
pub struct Captions<'a> {
    /// The distinct ones.
    pub texts: Vec<&'a str>,
    /// One number per pair.
    pub numbers: Vec<u32>,
}

impl<'a> Captions<'a> {
    /// Those of a source.
    pub fn of(source: &'a dyn PairSource) -> Self {
        let mut known: HashMap<&str, u32> = HashMap::new();
        let mut texts = Vec::new();
        let numbers = (0..source.len()).map(|position| {
            let caption = source.caption(position);
            *known.entry(caption).or_insert_with(|| {
                texts.push(caption);
                (texts.len() - 1) as u32
            })
        });
        let numbers = numbers.collect();
        Self { texts, numbers }
    }

    /// Captions that are encoded: the distinct ones and the empty one.
    pub fn n_encoded(&self) -> usize {
        self.texts.len() + 1
    }

    fn encoded(&self, range: Range<usize>) -> Vec<&'a str> {
        range.map(|number| self.texts.get(number).copied().unwrap_or("")).collect()
    }
}

/// What a cache is made from, and how.
#[derive(Clone, Copy)]
pub struct CacheInput<'a> {
    /// What it depends on.
    pub key: &'a Key,
    /// The pairs.
    pub source: &'a dyn PairSource,
    /// Their captions.
    pub captions: &'a Captions<'a>,
    /// Threads that decode.
    pub n_workers: usize,
    /// Where the VAE is.
    pub device: Device,
}

/// How far a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeProgress {
    /// Pairs that are in it.
    pub n_pairs: usize,
    /// Images that were encoded by this process.
    pub n_images: usize,
}

/// Shards of pairs that are not there yet or damaged, and for this rank to make.
///
/// # Errors
/// [`TrainError::Data`] if a shard cannot be read.
pub fn missing_pairs(folder: &mut CacheFolder, n_pairs: usize, rank: Rank) -> Result<Vec<usize>, TrainError> {
    missing(folder, ShardKind::Pairs, n_pairs.div_ceil(PAIRS_PER_SHARD), rank)
}

/// Shards of captions that are not there yet or damaged, and for this rank to make.
///
/// # Errors
/// [`TrainError::Data`] if a shard cannot be read.
pub fn missing_text(
    folder: &mut CacheFolder,
    n_captions: usize,
    rank: Rank,
) -> Result<Vec<usize>, TrainError> {
    missing(folder, ShardKind::Text, n_captions.div_ceil(CAPTIONS_PER_SHARD), rank)
}

fn missing(
    folder: &mut CacheFolder,
    kind: ShardKind,
    n_shards: usize,
    Rank { rank, world_size }: Rank,
) -> Result<Vec<usize>, TrainError> {
    let mut numbers = Vec::new();
    for number in (rank..n_shards).step_by(world_size.max(1)) {
        if !folder.keeps(kind, number)? {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Encodes the pairs of these shards. `on_pair` is called after each pair.
///
/// What a shard holds does not depend on which others are made, nor on the number of threads: an image is encoded once per
/// shard however many pairs show it, judged by its pixels after cutting. A pair with an image that cannot be read is skipped
/// by name.
///
/// # Errors
/// [`TrainError::NonFiniteLatents`]; [`TrainError::Data`] if the cache cannot be written, or the source not be reached.
pub fn cache_pairs(
    folder: &mut CacheFolder,
    numbers: &[usize],
    input: CacheInput<'_>,
    vae: &dyn Vae,
    on_pair: &mut dyn FnMut(EncodeProgress) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let CacheInput { key, source, captions, n_workers, device } = input;
    let mut n_images = 0;
    for &number in numbers {
        let first = number * PAIRS_PER_SHARD;
        let range = first..(first + PAIRS_PER_SHARD).min(source.len());
        let mut shard = ShardBuilder::new(key, vae, device);
        let work = |position: usize| CroppedPair::of(source, position, &key.images);
        in_order(range, n_workers, 2 * n_workers.max(1), work, |position, cropped| {
            shard.pair(cropped, source.id(position).0, captions.numbers[position])?;
            n_images += std::mem::take(&mut shard.n_new);
            on_pair(EncodeProgress { n_pairs: position + 1, n_images })
        })?;
        folder.add(ShardKind::Pairs, number, &shard.finish()?)?;
    }
    Ok(())
}

/// Encodes the captions of these shards.
///
/// # Errors
/// [`TrainError::Data`] if the cache cannot be written.
pub fn cache_text(
    folder: &mut CacheFolder,
    numbers: &[usize],
    captions: &Captions<'_>,
    text: &TextEncoders,
    dtype: DType,
) -> Result<(), TrainError> {
    for &number in numbers {
        let first = number * CAPTIONS_PER_SHARD;
        let range = first..(first + CAPTIONS_PER_SHARD).min(captions.n_encoded());
        let encoded = text.encode(&captions.encoded(range), 0);
        let hidden = match &encoded.lengths {
            Some(_) => host(&Tensor::cat(&encoded.captions(), 0), dtype),
            None => host(&encoded.hidden, dtype),
        };
        let pooled = encoded.pooled.as_ref().map(|pooled| host(pooled, dtype));
        let pooled = pooled.as_ref().map(|(shape, bytes)| (shape.as_slice(), bytes.as_slice()));
        let (hidden, lengths) = ((hidden.0.as_slice(), hidden.1.as_slice()), encoded.lengths.as_deref());
        let bytes = text_shard(&EncodedText { dtype, hidden, lengths, pooled })?;
        folder.add(ShardKind::Text, number, &bytes)?;
    }
    Ok(())
}

/// The posterior of images, on the host; `pairs` says which pair each belongs to.
///
/// # Errors
/// [`TrainError::NonFiniteLatents`] naming the first pair whose latents are not finite.
pub(crate) fn encode(vae: &dyn Vae, images: &Tensor, pairs: &[u64]) -> Result<Posterior, TrainError> {
    let Posterior { mean, std } = tch::no_grad(|| vae.encode(images));
    let finite = (&mean + &std).isfinite().flatten(1, -1).all_dim(1, false); // [b]
    let finite = Vec::<bool>::try_from(finite.to_device(Device::Cpu)).expect("one flag per image");
    match finite.iter().position(|&finite| !finite) {
        Some(image) => Err(TrainError::NonFiniteLatents { pair: pairs[image] }),
        None => {
            let host = |tensor: Tensor| tensor.to_device(Device::Cpu).contiguous();
            Ok(Posterior { mean: host(mean), std: host(std) })
        }
    }
}

/// A pair cropped to its resolution.
struct CroppedPair {
    resolution: Size,
    images: [RgbImage; 2],
    /// Hashes of the images' pixels.
    hashes: [String; 2],
    sizes: [u32; 4],
}

impl CroppedPair {
    fn of(
        source: &dyn PairSource,
        position: usize,
        resolutions: &BucketResolutions,
    ) -> Result<Self, TrainError> {
        let decoded = decode_pair(source, position, resolutions, &Side::BOTH)?;
        let winner = CropFlip::CENTER.apply(&decoded.images[0], decoded.resolution);
        let of_winner = sha256_bytes(winner.as_raw());
        let loser = decoded.images.get(1).map(|image| CropFlip::CENTER.apply(image, decoded.resolution));
        let of_loser = loser.as_ref().map_or_else(|| of_winner.clone(), |loser| sha256_bytes(loser.as_raw()));
        let loser = loser.unwrap_or_else(|| winner.clone());
        let (images, hashes) = ([winner, loser], [of_winner, of_loser]);
        Ok(Self {
            resolution: decoded.resolution,
            images,
            hashes,
            sizes: decoded.sizes(CropFlip::CENTER.crop),
        })
    }
}

/// A shard that is being filled.
struct ShardBuilder<'a> {
    key: &'a Key,
    vae: &'a dyn Vae,
    device: Device,
    draft: PairShardDraft,
    rows: HashMap<(Size, String), u32>,
    /// How many images of each resolution there are, those that wait included.
    n_rows: HashMap<Size, u32>,
    /// Images that wait for a full batch, by resolution, with the pair that shows each first.
    waiting: HashMap<Size, Vec<(RgbImage, u64)>>,
    n_new: usize,
}

impl<'a> ShardBuilder<'a> {
    fn new(key: &'a Key, vae: &'a dyn Vae, device: Device) -> Self {
        Self {
            key,
            vae,
            device,
            draft: PairShardDraft::new(key.latents.dtype),
            rows: HashMap::new(),
            n_rows: HashMap::new(),
            waiting: HashMap::new(),
            n_new: 0,
        }
    }

    fn pair(
        &mut self,
        cropped: Result<CroppedPair, TrainError>,
        id: u64,
        caption: u32,
    ) -> Result<(), TrainError> {
        let CroppedPair { resolution, images: [winner, loser], hashes: [of_winner, of_loser], sizes } =
            match cropped {
                Ok(cropped) => cropped,
                Err(TrainError::Data(error)) => {
                    let detail = error.skips().ok_or(error)?;
                    self.draft.push(Err(detail));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
        let winner = self.row(resolution, winner, of_winner, id)?;
        let loser = self.row(resolution, loser, of_loser, id)?;
        self.draft.push(Ok(CachedPair { resolution, winner, loser, caption, sizes }));
        Ok(())
    }

    /// The row that an image has or will have.
    fn row(&mut self, resolution: Size, image: RgbImage, hash: String, pair: u64) -> Result<u32, TrainError> {
        if let Some(&row) = self.rows.get(&(resolution, hash.clone())) {
            return Ok(row);
        }
        let n_rows = self.n_rows.entry(resolution).or_default();
        let row = *n_rows;
        *n_rows += 1;
        self.n_new += 1;
        self.rows.insert((resolution, hash), row);
        let waiting = self.waiting.entry(resolution).or_default();
        waiting.push((image, pair));
        if waiting.len() >= self.key.latents.batch_size {
            self.encode_waiting(resolution)?;
        }
        Ok(row)
    }

    fn encode_waiting(&mut self, resolution: Size) -> Result<(), TrainError> {
        let waiting = self.waiting.remove(&resolution).unwrap_or_default();
        if waiting.is_empty() {
            return Ok(());
        }
        let pairs: Vec<u64> = waiting.iter().map(|(_, pair)| *pair).collect();
        let upright =
            pixels(waiting.iter().map(|(image, _)| image.as_raw().as_slice()), resolution, self.device);
        let mut orientations = vec![encode(self.vae, &upright, &pairs)?];
        if self.key.hflip {
            orientations.push(encode(self.vae, &upright.flip([3i64]), &pairs)?);
        }
        let dtype = self.key.latents.dtype;
        let join = |part: fn(&Posterior) -> &Tensor| {
            let parts: Vec<&Tensor> = orientations.iter().map(part).collect();
            Tensor::stack(&parts, 1) // [b, m, c, h, w]
        };
        let (mean, std) = (join(|p| &p.mean), join(|p| &p.std));
        for image in 0..waiting.len() as i64 {
            let (shape, mean) = host(&mean.get(image), dtype);
            let std = host(&std.get(image), dtype).1;
            let shape = [0, 1, 2, 3].map(|axis: usize| shape[axis]);
            self.draft.image(resolution, shape, &mean, &std);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, TrainError> {
        let mut buckets: Vec<Size> = self.waiting.keys().copied().collect();
        buckets.sort_unstable();
        for resolution in buckets {
            self.encode_waiting(resolution)?;
        }
        Ok(self.draft.into_bytes()?)
    }
}

/// A tensor's shape and its numbers as bytes.
fn host(tensor: &Tensor, dtype: DType) -> (Vec<usize>, Vec<u8>) {
    let tensor = tensor.to_device(Device::Cpu).to_kind(kind_of(dtype)).contiguous();
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    let mut bytes = vec![0u8; tensor.numel() * dtype.bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    (shape, bytes)
}
