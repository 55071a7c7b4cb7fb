//! How pairs are encoded, by a plan or without one.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use tastemaker_data::buckets::{BucketResolutions, BucketSettings};
use tastemaker_run::{Adapter, BucketPlan, Plan, TimeIds};
use tastemaker_store::dtype::DType;
use tch::Device;

/// Images per forward pass of the VAE, and the pixels they may have together: its maps are as large as the images.
const ENCODE_BATCH: usize = 8;
const ENCODE_PIXELS: u64 = 2 << 20;

/// Everything that decides latents and embeddings of pairs, where they are cached and where they are computed.
#[derive(Debug, Clone)]
pub struct EncodeSettings {
    /// Resolution and buckets.
    pub resolutions: BucketResolutions,
    /// Whether images are flipped half of the time.
    pub random_hflip: bool,
    /// Whether the part that is kept is drawn; else it is the middle. Without a cache only.
    pub random_crop: bool,
    /// SDXL's micro-conditioning.
    pub time_ids: TimeIds,
    /// Type of stored latents.
    pub cache_dtype: DType,
    /// Type that text encoders compute in; embeddings have it, too.
    pub precision: DType,
    /// Whether text encoders are trained: then captions are not encoded beforehand.
    pub trains_text: bool,
    /// Threads that decode.
    pub n_workers: usize,
    /// The folder of the cache; `None` for one below `cache_root`, named after what it is of.
    pub cache_dir: Option<PathBuf>,
    /// Where caches without a folder of their own go.
    pub cache_root: PathBuf,
    /// Where networks encode.
    pub device: Device,
}

impl EncodeSettings {
    /// For squares of this many pixels: unflipped, center crops in f32, captions encoded.
    pub fn square(resolution: u32, cache_root: PathBuf, device: Device) -> Self {
        Self {
            resolutions: BucketResolutions { resolution, buckets: None },
            random_hflip: false,
            random_crop: false,
            time_ids: TimeIds::default(),
            cache_dtype: DType::F32,
            precision: DType::F32,
            trains_text: false,
            n_workers: n_workers(0),
            cache_dir: None,
            cache_root,
            device,
        }
    }

    /// Those of a plan.
    pub fn of(plan: &Plan, device: Device) -> Self {
        let data = &plan.data;
        let buckets = data.buckets().map(|BucketPlan { step, min, max }| BucketSettings { step, min, max });
        let mut sibling = plan.output_dir.file_name().unwrap_or_default().to_owned();
        sibling.push("-cache");
        let cache_root = plan.cache_root.clone();
        Self {
            resolutions: BucketResolutions { resolution: data.resolution, buckets },
            random_hflip: !data.no_hflip,
            random_crop: data.random_crop,
            time_ids: data.time_ids,
            cache_dtype: data.cache_dtype.unwrap_or_default(),
            precision: plan.train.mixed_precision,
            trains_text: Self::trains_text(plan),
            n_workers: n_workers(data.dataloader_num_workers as usize),
            cache_dir: data.cache_to.clone(),
            cache_root: cache_root.unwrap_or_else(|| plan.output_dir.with_file_name(sibling)),
            device,
        }
    }

    /// Whether a plan trains text encoders.
    pub(crate) fn trains_text(plan: &Plan) -> bool {
        matches!(&plan.adapter, Adapter::Lora(lora) if !lora.text_encoder_target_modules.is_empty())
    }

    /// Images per forward pass of the VAE.
    pub(crate) fn vae_batch_size(&self) -> usize {
        let fitting = ENCODE_PIXELS / u64::from(self.resolutions.resolution).pow(2);
        usize::try_from(fitting).unwrap_or(ENCODE_BATCH).clamp(1, ENCODE_BATCH)
    }
}

/// As many threads as asked for; as many as the machine has for 0.
fn n_workers(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n,
    }
}
