//! From the pairs of a run to batches: the cache is made or found, or pairs are encoded whenever they are used.

use std::path::PathBuf;

use tastemaker_data::PairSource;
use tastemaker_data::cache::{CAPTIONS_PER_SHARD, CacheFolder, Key, LatentKey, PAIRS_PER_SHARD, TextKey};
use tastemaker_data::transform::Size;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Family, Model, TextEncoders};
use tastemaker_models::vae::AutoencoderKl;
use tastemaker_run::{Encode, Event, Plan, TimeIds};
use tastemaker_store::checksum::hex;
use tastemaker_store::dtype::DType;
use tastemaker_store::lock::{FolderLock, Sharing};
use tastemaker_torch::error::guard;
use tch::Device;

use super::encode::{
    CacheInput, Captions, EncodeProgress, cache_pairs, cache_text, missing_pairs, missing_text,
};
use super::live::resolution_of;
use super::{CacheConditioning, CachedPairs, EncodeSettings, EncodedShapes, LivePairs, Rank};
use crate::TrainError;

/// Is called with every event.
pub type OnEvent<'a> = dyn FnMut(&Event) -> Result<(), TrainError> + 'a;

/// A cache on disk, and what it is of.
pub(crate) struct Cache {
    pub(crate) folder: CacheFolder,
    pub(crate) key: Key,
}

/// Pairs, and the model that encodes them.
pub(crate) struct Encoder<'a> {
    pub(crate) model: &'a Model,
    pub(crate) source: &'a dyn PairSource,
    pub(crate) settings: EncodeSettings,
    captions: Captions<'a>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(model: &'a Model, source: &'a dyn PairSource, settings: EncodeSettings) -> Self {
        Self { model, source, settings, captions: Captions::of(source) }
    }

    /// What the cache depends on.
    ///
    /// # Errors
    /// [`TrainError::Model`] for a model whose files are missing or malformed.
    pub(crate) fn key(&self) -> Result<Key, TrainError> {
        let settings = &self.settings;
        let dtype = settings.precision;
        let text = match settings.trains_text {
            true => None,
            false => Some(TextKey { encoders: self.model.text_fingerprint()?, dtype }),
        };
        Ok(Key {
            format: Key::FORMAT,
            pairs: hex(&self.source.fingerprint()),
            n_pairs: self.source.len() as u64,
            images: settings.resolutions.clone(),
            hflip: settings.random_hflip,
            latents: LatentKey {
                vae: self.model.vae_fingerprint()?,
                batch_size: settings.vae_batch_size(),
                dtype: settings.cache_dtype,
                decoder: self.source.decoder(),
            },
            text,
        })
    }

    /// Makes the cache, or the part of it that is this rank's; what is there already stays.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the folder holds another cache, or cannot be written; [`TrainError::Model`];
    /// [`TrainError::NonFiniteLatents`].
    pub(crate) fn cache(&self, rank: Rank, on_event: &mut OnEvent<'_>) -> Result<Cache, TrainError> {
        let Self { model, source, settings, captions } = self;
        let (path, key) = self.place(on_event)?;
        let folder = CacheFolder::open(&path, &key)?;
        if folder.was_read_in_full() {
            let path = folder.path().display();
            let text = format!(
                "the cache {path} is of an earlier version: all of it was compared with its checksums, and those it lacked were added"
            );
            on_event(&Event::Note { text })?;
        }
        if folder.is_whole() {
            return Ok(Cache { folder, key });
        }
        // Processes that share the work are at it together; others wait, and find what those have made.
        let sharing = if rank.world_size == 1 { Sharing::Alone } else { Sharing::Shared };
        let _lock = FolderLock::wait(&path, sharing, || on_event(&Event::Waiting { path: path.clone() }))?;
        let mut folder = CacheFolder::open(&path, &key)?;
        if folder.is_whole() {
            return Ok(Cache { folder, key });
        }
        let n_pairs = source.len();
        let n_text = if key.text.is_some() { captions.n_encoded() } else { 0 };
        let text = missing_text(&mut folder, n_text, rank)?;
        let pairs = missing_pairs(&mut folder, n_pairs, rank)?;
        if let (Some(text_key), false) = (&key.text, text.is_empty()) {
            let encoders = model.text(settings.precision, settings.device)?;
            guard("encoding captions", "", || {
                cache_text(&mut folder, &text, captions, &encoders, text_key.dtype)
            })??;
        }
        if !pairs.is_empty() {
            let vae = self.vae()?;
            let (n_workers, device) = (settings.n_workers, settings.device);
            let input = CacheInput { key: &key, source: *source, captions, n_workers, device };
            let (resolution, batch_size) = (settings.resolutions.resolution, key.latents.batch_size);
            let doing = format!("encoding {batch_size} images of {resolution} x {resolution}");
            let mut on_pair = |EncodeProgress { n_pairs: n_done, n_images }| {
                let (n_done, n_pairs, n_images) = (n_done as u64, n_pairs as u64, n_images as u64);
                on_event(&Event::Encode(Encode { n_done, n_pairs, n_images }))
            };
            guard(&doing, "a smaller resolution needs less", || {
                cache_pairs(&mut folder, &pairs, input, &vae, &mut on_pair)
            })??;
        }
        let n_shards = n_text.div_ceil(CAPTIONS_PER_SHARD);
        folder.finish(n_pairs.div_ceil(PAIRS_PER_SHARD), n_shards, rank.world_size == 1)?;
        Ok(Cache { folder, key })
    }

    /// Where the cache of a key goes.
    fn folder_of(&self, key: &Key) -> PathBuf {
        let settings = &self.settings;
        settings.cache_dir.clone().unwrap_or_else(|| settings.cache_root.join(&key.digest()[..16]))
    }

    /// Whether there is a whole cache of these settings, or one of an earlier version.
    fn has_cache(&self) -> Result<bool, TrainError> {
        let key = self.key()?;
        let here = |key: &Key| CacheFolder::is_whole_at(&self.folder_of(key), key);
        Ok(here(&key) || here(&key.without_decoder()))
    }

    /// Where the cache goes, and its key. One of an earlier version is taken as it is, unless that decoded an image otherwise.
    fn place(&self, on_event: &mut OnEvent<'_>) -> Result<(PathBuf, Key), TrainError> {
        let source = self.source;
        let key = self.key()?;
        let (path, before) = (self.folder_of(&key), self.folder_of(&key.without_decoder()));
        if path != before && (path.exists() || !before.exists()) {
            return Ok((path, key));
        }
        if let Some(former) = CacheFolder::key_at(&before, &key, || source.decodes_as_ever())? {
            return Ok((before, former));
        }
        if path != before {
            let before = before.display();
            let text = format!(
                "pairs are encoded again: the cache {before} was made by an earlier version, which decoded JPEG to other pixels"
            );
            on_event(&Event::Note { text })?;
        }
        Ok((path, key))
    }

    /// The pairs of a cache that is whole; with token ids for text encoders that are trained.
    pub(crate) fn open_cached(
        &self,
        cache: &Cache,
        trained: Option<&TextEncoders>,
    ) -> Result<CachedPairs, TrainError> {
        let tokens = trained.map(|text| {
            let known: Vec<&str> = self.captions.texts.iter().copied().chain([""]).collect();
            text.tokens(&known)
        });
        let conditioning = CacheConditioning { time_ids: self.time_ids(), tokens };
        let n_captions = self.captions.texts.len();
        CachedPairs::open(&cache.folder, &cache.key, self.source, n_captions, self.shapes()?, conditioning)
    }

    /// What latents and embeddings of the model look like, by its configuration.
    fn shapes(&self) -> Result<EncodedShapes, TrainError> {
        let (vae, backbone) = (self.model.vae_config()?, self.model.backbone_config()?);
        let size = |n: i64| usize::try_from(n).unwrap_or_default();
        Ok(EncodedShapes {
            channels: size(vae.latent_channels),
            downsampling: size(vae.downsampling()),
            width: size(backbone.text_width()),
            has_lengths: self.model.family().captions_have_lengths(),
            pooled: backbone.pooled_width().map(size),
        })
    }

    /// The pairs from pixels. Loads VAE and text encoders.
    pub(crate) fn open_live(&self) -> Result<LivePairs<'a, AutoencoderKl>, TrainError> {
        let settings = self.settings.clone();
        let text = self.model.text(settings.precision, settings.device)?;
        Ok(LivePairs::new(self.source, self.vae()?, text, settings, self.time_ids()))
    }

    /// The bucket resolution of a pair by the sizes of its images.
    pub(crate) fn resolution(&self, index: usize) -> Size {
        resolution_of(self.source, &self.settings, index)
    }

    fn time_ids(&self) -> Option<TimeIds> {
        match self.model.family() {
            Family::StableDiffusion | Family::StableDiffusion3 | Family::ZImage => None,
            Family::StableDiffusionXl => Some(self.settings.time_ids),
        }
    }

    /// Side precision would save little here, and SDXL's VAE overflows in it.
    fn vae(&self) -> Result<AutoencoderKl, TrainError> {
        Ok(self.model.vae(Role::Frozen, DType::F32, self.settings.device)?.network)
    }
}

/// The plan with the precision of its cache: what it says, else by the number of pairs. A cache in full precision that is there already, as
/// earlier versions made it of any number, is not made again in half of it.
///
/// # Errors
/// [`TrainError::Model`] for a model whose files are missing or malformed.
pub(crate) fn with_cache_dtype(
    plan: Plan,
    model: &Model,
    source: &dyn PairSource,
) -> Result<Plan, TrainError> {
    let is_said = plan.data.cache_dtype.is_some() || plan.data.no_cache;
    let chosen = plan.clone().with_cache_of(source.len() as u64);
    if is_said || chosen.data.cache_dtype == Some(DType::F32) {
        return Ok(chosen);
    }
    let mut full = plan;
    full.data.cache_dtype = Some(DType::F32);
    let encoder = Encoder::new(model, source, EncodeSettings::of(&full, Device::Cpu));
    Ok(if encoder.has_cache()? { full } else { chosen })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tastemaker_data::{InMemoryPairs, Ranking};
    use tastemaker_run::{MANY_PAIRS, Recipe, resolve};
    use tastemaker_testkit_torch::tiny_model;

    use super::*;

    #[test]
    fn a_cache_in_full_precision_that_is_there_is_not_made_again_in_half() {
        let folder = tempfile::tempdir().unwrap();
        tiny_model(folder.path());
        let model = Model::open(folder.path()).unwrap();
        let image = Arc::new(image::RgbImage::new(8, 8));
        let ranking = |_| Ranking { winner: 0, loser: 0, caption: "a fox".into() };
        let source = InMemoryPairs::new(vec![image], (0..=MANY_PAIRS).map(ranking).collect()).unwrap();
        let text = "output_dir = \"o\"\n[method]\nname = \"sft\"\n[model]\npretrained_model_name_or_path = \"m\"\n[data]\n\
                    train_data_dir = \"d\"\n[train]\nmax_train_steps = 1\n";
        let mut plan =
            resolve(Recipe::parse(Path::new("run.toml"), text).unwrap(), Default::default()).unwrap();
        plan.cache_root = Some(folder.path().join("caches"));
        let chosen = || with_cache_dtype(plan.clone(), &model, &source).unwrap().data.cache_dtype;
        assert_eq!(chosen(), Some(DType::F16));
        let mut full = plan.clone();
        full.data.cache_dtype = Some(DType::F32);
        let encoder = Encoder::new(&model, &source, EncodeSettings::of(&full, Device::Cpu));
        let key = encoder.key().unwrap();
        let path = encoder.folder_of(&key);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("key.json"), key.json()).unwrap();
        assert_eq!(chosen(), Some(DType::F16), "one that is not whole");
        std::fs::write(path.join("index.json"), "{}").unwrap();
        assert_eq!(chosen(), Some(DType::F32));
    }
}
