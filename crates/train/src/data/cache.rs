//! From the pairs of a plan to batches: the cache is made or found, or pairs are encoded whenever they are used.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use tastemaker_data::PairSource;
use tastemaker_data::buckets::{BucketResolutions, BucketSettings};
use tastemaker_data::cache::{CacheFolder, Element, Key, LatentKey, PAIRS_PER_SHARD, TextKey};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Family, Model, TextEncoders};
use tastemaker_models::vae::Vae;
use tastemaker_run::{Adapter, Augment, BucketPlan, Encode, Event, MixedPrecision, OutputType, Plan};
use tastemaker_store::checksum::hex;
use tastemaker_torch::Precision;
use tastemaker_torch::error::guard;
use tch::Device;

use crate::TrainError;
use crate::data::Augmentation;
use crate::data::encode::{
    Cached, CachingSettings, Captions, Subject, cache_pairs, cache_text, missing_pairs, missing_text,
};
use crate::data::{CachedPairs, LivePairs, LiveSettings, Told};

/// Images per forward pass of the vae, and the pixels they may have together: its maps are as large as the images.
const ENCODE_BATCH: usize = 8;
const ENCODE_PIXELS: u64 = 2 << 20;

/// Hears of events.
pub type Tell<'a> = dyn FnMut(&Event) -> Result<(), TrainError> + 'a;

/// The bucket resolutions of a plan.
pub fn resolutions(plan: &Plan) -> BucketResolutions {
    let buckets = plan.data.buckets().map(|BucketPlan { step, min, max }| BucketSettings { step, min, max });
    BucketResolutions { resolution: plan.data.resolution, buckets }
}

/// How images are augmented by a plan.
pub(crate) fn augmentation(plan: &Plan) -> Augmentation {
    Augmentation { seed: plan.train.seed, joint: plan.data.augment == Augment::Joint }
}

/// The type that frozen weights and activations have by a plan.
pub(crate) fn precision(plan: &Plan) -> Precision {
    precision_of(plan.train.mixed_precision)
}

/// The type that frozen weights and activations have under a name of it.
pub fn precision_of(name: MixedPrecision) -> Precision {
    match name {
        MixedPrecision::No => Precision::F32,
        MixedPrecision::Bf16 => Precision::Bf16,
        MixedPrecision::Fp16 => Precision::F16,
    }
}

/// Whether text encoders learn by a plan, so that captions cannot be encoded beforehand.
pub(crate) fn text_learns(plan: &Plan) -> bool {
    matches!(&plan.adapter, Adapter::Lora(lora) if !lora.text_encoder_target_modules.is_empty())
}

fn n_workers(plan: &Plan) -> usize {
    match plan.data.dataloader_num_workers {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n as usize,
    }
}

fn encode_batch(plan: &Plan) -> usize {
    let fitting = ENCODE_PIXELS / u64::from(plan.data.resolution).pow(2);
    usize::try_from(fitting).unwrap_or(ENCODE_BATCH).clamp(1, ENCODE_BATCH)
}

/// What the cache of a plan depends on.
///
/// # Errors
/// [`TrainError::Model`] for a model whose files are missing or malformed.
pub fn cache_key(plan: &Plan, model: &Model, source: &dyn PairSource) -> Result<Key, TrainError> {
    let text = if text_learns(plan) {
        None
    } else {
        let dtype = match precision(plan) {
            Precision::F32 => Element::Float32,
            Precision::Bf16 => Element::Bfloat16,
            Precision::F16 => Element::Float16,
        };
        Some(TextKey { encoders: model.text_fingerprint()?, dtype })
    };
    Ok(Key {
        format: Key::FORMAT,
        pairs: hex(&source.fingerprint()),
        n_pairs: source.len() as u64,
        images: resolutions(plan),
        hflip: !plan.data.no_hflip,
        latents: LatentKey {
            vae: model.vae_fingerprint()?,
            batch_size: encode_batch(plan),
            dtype: match plan.data.cache_dtype {
                OutputType::Float32 => Element::Float32,
                OutputType::Float16 => Element::Float16,
                OutputType::Bfloat16 => Element::Bfloat16,
            },
        },
        text,
    })
}

/// Where the cache of a plan is: the folder it names, or one named after the key beside others.
fn cache_folder(plan: &Plan, key: &Key) -> PathBuf {
    plan.data.cache_to.clone().unwrap_or_else(|| caches(plan).join(&key.digest()[..16]))
}

/// Where caches and banks of a plan go that are given no place of their own.
pub(crate) fn caches(plan: &Plan) -> PathBuf {
    let mut sibling = plan.output_dir.file_name().unwrap_or_default().to_owned();
    sibling.push("-cache");
    plan.cache_root.clone().unwrap_or_else(|| plan.output_dir.with_file_name(sibling))
}

/// Makes the cache of a plan, or this process's share of it; what is there already stays.
///
/// # Errors
/// [`TrainError::Data`] if the folder holds another cache, or cannot be written; [`TrainError::Model`];
/// [`TrainError::NonFiniteLatents`].
pub(crate) fn cache(
    plan: &Plan,
    model: &Model,
    source: &dyn PairSource,
    captions: &Captions<'_>,
    settings: &CachingSettings,
    tell: &mut Tell<'_>,
) -> Result<(CacheFolder, Key), TrainError> {
    let key = cache_key(plan, model, source)?;
    let mut folder = CacheFolder::open(cache_folder(plan, &key), &key)?;
    if folder.is_whole() {
        return Ok((folder, key));
    }
    let n_pairs = source.len();
    let n_text = if key.text.is_some() { captions.n_encoded() } else { 0 };
    let text = missing_text(&mut folder, n_text, settings.share)?;
    let pairs = missing_pairs(&mut folder, n_pairs, settings.share)?;
    if let (Some(text_key), false) = (&key.text, text.is_empty()) {
        let encoders = model.text(precision(plan), settings.device)?;
        guard("encoding captions", || {
            cache_text(&mut folder, &text, captions, &encoders, text_key.dtype, &mut |_| Ok(()))
        })??;
    }
    if !pairs.is_empty() {
        let vae = vae(model, settings.device)?;
        let subject = Subject { key: &key, source, captions };
        let resolution = plan.data.resolution;
        let batch_size = key.latents.batch_size;
        let doing = format!("encoding {batch_size} images of {resolution} x {resolution}");
        let mut heard = |Cached { n_pairs: n_done, n_images }| {
            let (n_done, n_pairs, n_images) = (n_done as u64, n_pairs as u64, n_images as u64);
            tell(&Event::Encode(Encode { n_done, n_pairs, n_images }))
        };
        guard(&doing, || cache_pairs(&mut folder, &pairs, subject, &vae, settings, &mut heard))??;
    }
    let n_text = n_text.div_ceil(tastemaker_data::cache::CAPTIONS_PER_SHARD);
    folder.finish(n_pairs.div_ceil(PAIRS_PER_SHARD), n_text, settings.share.1 == 1)?;
    Ok((folder, key))
}

/// How this process makes the whole cache.
pub(crate) fn caching(plan: &Plan, device: Device, share: (usize, usize)) -> CachingSettings {
    CachingSettings { n_workers: n_workers(plan), device, share }
}

/// The pairs of a cache that is whole, knowing what the cache does not.
pub(crate) fn open_cached(
    plan: &Plan,
    model: &Model,
    source: &dyn PairSource,
    captions: &Captions<'_>,
    cache: (&CacheFolder, &Key),
    learning: Option<&TextEncoders>,
) -> Result<CachedPairs, TrainError> {
    let tokens = learning.map(|text| {
        let known: Vec<&str> = captions.texts.iter().copied().chain([""]).collect();
        text.tokens(&known)
    });
    let told = Told { time_ids: time_ids(plan, model), tokens };
    CachedPairs::open(cache.0, cache.1, source, captions.texts.len(), told)
}

fn time_ids(plan: &Plan, model: &Model) -> Option<tastemaker_run::TimeIds> {
    match model.family() {
        Family::StableDiffusion => None,
        Family::StableDiffusionXl => Some(plan.data.time_ids),
    }
}

/// The pairs of a plan from pixels. Loads VAE and text encoders.
pub(crate) fn open_live<'a>(
    plan: &Plan,
    model: &Model,
    source: &'a dyn PairSource,
    device: Device,
) -> Result<LivePairs<'a, Vae>, TrainError> {
    let settings = LiveSettings {
        resolutions: resolutions(plan),
        random_hflip: !plan.data.no_hflip,
        random_crop: plan.data.random_crop,
        time_ids: time_ids(plan, model),
        batch_size: encode_batch(plan),
        n_workers: n_workers(plan),
    };
    let text = model.text(precision(plan), device)?;
    Ok(LivePairs::new(source, vae(model, device)?, text, text_learns(plan), settings))
}

/// Half precision would save little here, and SDXL's VAE overflows in it.
fn vae(model: &Model, device: Device) -> Result<Vae, TrainError> {
    Ok(model.vae(Role::Frozen, Precision::F32, device)?.network)
}
