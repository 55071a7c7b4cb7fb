//! Single-file checkpoints in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tastemaker_store::StoreError;
use tastemaker_torch::tensors::Raw;
use tastemaker_weights::check_finite;
use tastemaker_weights::safetensors::{Dtype, Metadata, TensorView, write};

use super::index::Family;
use super::model::Model;
use super::part::HeldNetwork;
use super::save::Trained;
use crate::ModelError;
use crate::clip_text::Activation;
use crate::mmdit;
use crate::original::{
    ComponentMap, Layout, OpenFile, Preset, Problems, StatedNoise, UNET, VAE, is_ballast, is_ballast_of_vae,
    marks, refuse, usual_name,
};
use crate::place::Moved;
use crate::t5::{EMBEDDINGS, TWIN};
use crate::vae::VaeConfig;
use crate::zimage::SPLIT;

impl Layout {
    /// The layout whose names a model's tensors take.
    ///
    /// # Errors
    /// As [`Model::text_config`].
    pub fn of_folder(model: &Model) -> Result<Self, ModelError> {
        let open_clip = model.family() == Family::StableDiffusion
            && model.text_config("text_encoder")?.encoder.activation == Activation::Gelu;
        Ok(match (model.family(), open_clip) {
            (Family::StableDiffusion3, _) => Self::Sd3,
            (Family::ZImage, _) => Self::ZImage,
            (Family::StableDiffusionXl, _) => Self::Sdxl,
            (Family::StableDiffusion, true) => Self::Sd2,
            (Family::StableDiffusion, false) => Self::Sd1,
        })
    }
}

impl From<Layout> for Family {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Sd1 | Layout::Sd2 => Self::StableDiffusion,
            Layout::Sdxl => Self::StableDiffusionXl,
            Layout::Sd3 => Self::StableDiffusion3,
            Layout::ZImage => Self::ZImage,
        }
    }
}

/// Writes the network that predicts, VAE and text encoders of a model to one safetensors file under original names, every tensor in the element
/// type it has. Networks in `trained` go in place of the model's own. What the UNet predicts, and from which noise, is said in
/// the header and, as others do, in empty tensors.
///
/// # Errors
/// [`ModelError::Store`] if a file cannot be read or written; [`ModelError::Config`] naming every tensor that original
/// checkpoints have no place for.
pub fn pack(
    model: &Model,
    trained: &[Trained<'_>],
    file: impl AsRef<Path>,
    metadata: &Metadata,
) -> Result<Layout, ModelError> {
    let (layout, file) = (Layout::of_folder(model)?, file.as_ref());
    let mut sources = Vec::new();
    for (component, _) in layout.networks() {
        if layout.comes_in_parts() && !model.has_weights(component) {
            continue;
        }
        let map = map_of(layout, component, model)?.map_err(|problems| refuse(model.path(), &problems))?;
        let given = trained.iter().find(|network| network.component == component);
        let given = given.map(|network| network.raw(file)).transpose()?;
        let stored = if given.is_some() { None } else { Some(model.stored(component)?) };
        sources.push((map, stored, given.unwrap_or_default()));
    }
    let held: Vec<BTreeMap<String, Moved<'_>>> = sources
        .iter()
        .map(|(_, source, _)| source.iter().flat_map(|s| s.tensors()).map(|t| (t.name.clone(), t)).collect())
        .collect();
    let mut moved: Vec<Moved<'_>> = Vec::new();
    for ((map, source, given), held) in sources.iter().zip(&held) {
        let given: BTreeMap<&str, &Raw> = given.iter().map(|raw| (raw.name.as_str(), raw)).collect();
        let found = match source {
            Some(_) => map.store(|name| held.get(name).map(Moved::view)),
            None => map.store(|name| given.get(name).map(|raw| raw.view())),
        };
        let path = source.as_ref().map_or(file, |source| source.path());
        let found = found.map_err(|problems| refuse(path, &problems))?;
        found.iter().try_for_each(|tensor| check_finite(path, &tensor.view()))?;
        moved.extend(found);
    }
    let (mut header, marked) = match model.scheduler_config().exists() {
        true => {
            let schedule = model.schedule()?.schedule;
            marks(layout, schedule.prediction(), schedule.ends_in_noise())
        }
        false => Default::default(),
    };
    header.extend(metadata.clone());
    let mark = |name| TensorView { name, dtype: Dtype::F32, shape: &[0], bytes: &[] };
    let views: Vec<TensorView<'_>> =
        moved.iter().map(Moved::view).chain(marked.into_iter().map(mark)).collect();
    write(file, &views, &header)?;
    Ok(layout)
}

/// The names of one component's tensors under a layout; the inner error lists those that have no place there.
fn map_of(
    layout: Layout,
    component: &str,
    model: &Model,
) -> Result<Result<ComponentMap, Problems>, ModelError> {
    Ok(match component {
        "unet" | "transformer" => ComponentMap::backbone(&model.backbone_config()?),
        "vae" => ComponentMap::vae_under(&model.vae_config()?, layout.vae()),
        _ if layout.qwen().is_some_and(|(qwen, _)| component == qwen) => {
            let (config, (_, prefix)) = (model.qwen_config()?, layout.qwen().unwrap_or_default());
            let problem = || vec![format!("`{component}` without a configuration")];
            config.ok_or_else(problem).and_then(|config| ComponentMap::qwen(&config, prefix))
        }
        _ if layout.t5().is_some_and(|(t5, _)| component == t5) => {
            let (config, (_, prefix)) = (model.t5_config()?, layout.t5().unwrap_or_default());
            let problem = || vec![format!("`{component}` without a configuration")];
            config.ok_or_else(problem).and_then(|config| ComponentMap::t5(&config, prefix))
        }
        _ => {
            let index = layout.text().iter().position(|(name, ..)| *name == component).unwrap_or_default();
            ComponentMap::text(layout, index, &model.text_config(component)?)
        }
    })
}

/// A single-file checkpoint whose layout has been recognized.
#[derive(Debug, Clone)]
pub struct SingleFile {
    file: Arc<OpenFile>,
    /// How its tensors are named.
    pub layout: Layout,
    /// What it says of its noise.
    pub noise: StatedNoise,
}

impl SingleFile {
    /// Opens a checkpoint and reads its layout off its names.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing, malformed, or no checkpoint of SD1.x, SD2.x, SDXL, SD3 or Z-Image;
    /// [`ModelError::Config`] for noise that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let file = OpenFile::open(path.as_ref())?;
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        let file = file.spelled(usual_name(names.iter().map(String::as_str)));
        let names: Vec<&str> = file.names().collect();
        let layout = Layout::of(names.iter().copied()).map_err(|found| {
            let wanted = "a checkpoint of SD1.x, SD2.x, SDXL, SD3 or Z-Image under its original names";
            StoreError::malformed(file.path(), found, wanted)
        })?;
        let noise = StatedNoise::of(&file, layout)?;
        Ok(Self { file: Arc::new(file), layout, noise })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is wrong with the file, in words.
    pub(super) fn refuse(&self, problem: &str) -> ModelError {
        self.file.refuse(&vec![problem.to_owned()])
    }

    /// Every tensor of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.file.tensors()
    }

    /// What the file skips, and the sizes of a transformer of SD3, which its tensors say.
    ///
    /// # Errors
    /// [`ModelError::Config`] where they do not.
    pub fn preset(&self) -> Result<Preset, ModelError> {
        let mut preset = Preset::published(self.layout);
        if self.layout == Layout::Sd3 {
            let own = self
                .file
                .names()
                .filter_map(|name| Some((name.strip_prefix(UNET)?, self.file.get(name)?.shape)));
            let config = mmdit::config_of(&own.collect());
            let incomplete = || {
                self.file.refuse(&vec!["a transformer of SD3 without its first and last layers".to_owned()])
            };
            preset.configs.insert("transformer".to_owned(), config.ok_or_else(incomplete)?);
        }
        Ok(preset)
    }

    /// The networks in the file, whose sizes `model` describes, without those that are `replaced`.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming every tensor that is missing, has another shape or is not known.
    pub(super) fn networks(&self, model: &Model, replaced: &[&str]) -> Result<Vec<HeldNetwork>, ModelError> {
        let mut networks = Vec::new();
        let mut passed = Vec::new();
        for (component, prefix) in self.layout.networks() {
            if replaced.contains(&component) {
                passed.push(prefix);
                continue;
            }
            // Those that a file comes without are then where the description is, or nowhere.
            let is_there = self.file.names().any(|name| name.starts_with(prefix));
            if self.layout.comes_in_parts() && !is_there {
                continue;
            }
            if !model.index().components.iter().any(|listed| listed == component) {
                let problem = format!(
                    "`{prefix}...` is there, and its tokenizer in no file; add --model_config FOLDER, a folder of the model with \
                     `tokenizer_3` in it"
                );
                return Err(self.file.refuse(&vec![problem]));
            }
            let is_split = self.layout == Layout::ZImage && component == model.family().backbone();
            let map = match is_split && self.file.get(&format!("{UNET}{SPLIT}")).is_some() {
                true => ComponentMap::split_backbone(&model.backbone_config()?),
                false => map_of(self.layout, component, model)?,
            };
            let map = map.map_err(|problems| self.file.refuse(&problems))?;
            networks.push(HeldNetwork { component, file: Arc::clone(&self.file), map });
        }
        let wanted: BTreeSet<&str> = networks.iter().flat_map(|network| network.map.stored_names()).collect();
        let is_known = |name: &str| {
            wanted.contains(name)
                || is_ballast(name)
                || passed.iter().any(|prefix| name.starts_with(prefix))
                || name
                    .strip_suffix(TWIN)
                    .is_some_and(|prefix| wanted.contains(format!("{prefix}{EMBEDDINGS}").as_str()))
        };
        self.file.check_names(is_known)?;
        networks.iter().try_for_each(|network| self.file.check(&network.map))?;
        Ok(networks)
    }
}

/// The VAE in a file under original names, with or without what stands before them in a checkpoint.
///
/// # Errors
/// [`ModelError::Store`] for a file that is missing or malformed; [`ModelError::Config`] naming every tensor that is missing,
/// has another shape than `config` says, or is not known.
pub(super) fn vae_in_file(path: &Path, config: &VaeConfig) -> Result<HeldNetwork, ModelError> {
    let file = OpenFile::open(path)?;
    let in_checkpoint = file.names().any(|name| name.starts_with(VAE));
    let prefix = if in_checkpoint { VAE } else { "" };
    let map = ComponentMap::vae_under(config, prefix).map_err(|problems| file.refuse(&problems))?;
    let wanted: BTreeSet<&str> = map.stored_names().collect();
    file.check_names(|name| {
        wanted.contains(name) || is_ballast_of_vae(name) || in_checkpoint && !name.starts_with(VAE)
    })?;
    file.check(&map)?;
    Ok(HeldNetwork { component: "vae", map, file: Arc::new(file) })
}

impl Layout {
    /// Name of each network, and what stands before the names of its tensors.
    fn networks(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let text = self.text().iter().map(|(component, prefix, _)| (*component, *prefix));
        let alone = [(Family::from(self).backbone(), UNET), ("vae", self.vae())];
        alone.into_iter().chain(text).chain(self.t5()).chain(self.qwen())
    }
}
