//! A diffusers folder into one file, and one file into a diffusers folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use tastemaker_math::schedule::Prediction;
use tastemaker_store::safetensors::{Metadata, TensorView, write};
use tastemaker_store::weights::WeightFile;
use tastemaker_store::{StoreError, atomic, json as json_file};
use tastemaker_torch::mapped;

use super::keys::{Layout, is_ballast};
use super::map::{ComponentMap, Problems};
use super::place::Moved;
use super::preset::Preset;
use crate::ModelError;
use crate::clip_text::{Activation, ClipTextConfig};
use crate::pipeline::{DIFFUSERS_STEM, Family, ModelFolder, TRANSFORMERS_STEM};
use crate::unet::UNetConfig;
use crate::vae::VaeConfig;

impl Layout {
    /// The layout whose names a model folder's tensors take.
    ///
    /// # Errors
    /// As [`ModelFolder::text_config`].
    pub fn of_folder(folder: &ModelFolder) -> Result<Self, ModelError> {
        let open_clip = folder.text_config("text_encoder")?.encoder.activation == Activation::Gelu;
        Ok(match (folder.family(), open_clip) {
            (Family::StableDiffusionXl, _) => Self::Sdxl,
            (Family::StableDiffusion, true) => Self::Sd2,
            (Family::StableDiffusion, false) => Self::Sd1,
        })
    }
}

/// Writes UNet, VAE and text encoders of a model folder to one safetensors file under original names, every tensor in the
/// element type it has.
///
/// # Errors
/// [`ModelError::Store`] if a file cannot be read or written; [`ModelError::Config`] naming every tensor that original
/// checkpoints have no place for.
pub fn pack(folder: &ModelFolder, file: impl AsRef<Path>, metadata: &Metadata) -> Result<Layout, ModelError> {
    let layout = Layout::of_folder(folder)?;
    let mut components = vec![
        ("unet", ComponentMap::unet(&folder.unet_config()?)),
        ("vae", ComponentMap::vae(&folder.vae_config()?)),
    ];
    for (index, (component, ..)) in layout.text().iter().enumerate() {
        components.push((component, ComponentMap::text(layout, index, &folder.text_config(component)?)));
    }
    let mut stored = Vec::new();
    for (component, map) in components {
        let source = folder.stored(component)?;
        let map = map.map_err(|problems| refuse(source.path(), &problems))?;
        stored.push((source, map));
    }
    let mut moved: Vec<Moved<'_>> = Vec::new();
    for (source, map) in &stored {
        let found =
            map.store(|name| source.view(name)).map_err(|problems| refuse(source.path(), &problems))?;
        moved.extend(found);
    }
    let views: Vec<TensorView<'_>> = moved.iter().map(Moved::view).collect();
    write(file, &views, metadata)?;
    Ok(layout)
}

/// A single-file checkpoint whose layout has been recognised.
#[derive(Debug)]
pub struct SingleFile {
    path: PathBuf,
    checkpoint: WeightFile,
    /// How its tensors are named.
    pub layout: Layout,
}

impl SingleFile {
    /// Opens a checkpoint and reads its layout off its names.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing, malformed, or no checkpoint of SD1.x, SD2.x or SDXL.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let (checkpoint, _) = mapped::open(path)?;
        let names: Vec<String> = checkpoint.tensors().map(|tensor| tensor.name.to_owned()).collect();
        let layout = Layout::of(names.iter().map(String::as_str)).map_err(|found| {
            let wanted = "a checkpoint of SD1.x, SD2.x or SDXL under its original names";
            StoreError::malformed(path, found, wanted)
        })?;
        Ok(Self { path: path.to_owned(), checkpoint, layout })
    }

    /// Every tensor of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.checkpoint.tensors()
    }

    /// Writes the diffusers folder: the tensors in the element types they have, and from `preset` (as a rule
    /// [`Preset::published`]) what such files leave out. `model_index.json` comes last, so a folder that has one is complete.
    ///
    /// `prediction` is what the UNet predicts; the file does not say so, and the two kinds of SD2 differ in nothing else.
    ///
    /// # Errors
    /// [`ModelError::Store`] if a file cannot be read or written; [`ModelError::Config`] naming every tensor that is missing,
    /// has another shape or is not known.
    pub fn unpack(
        &self,
        folder: impl AsRef<Path>,
        prediction: Prediction,
        preset: &Preset,
    ) -> Result<(), ModelError> {
        let folder = folder.as_ref();
        let Self { path, checkpoint, layout } = self;
        let mut components: Vec<(&str, ComponentMap, &str)> = Vec::new();
        let unet =
            UNetConfig::from_json(preset.config("unet")).map_err(|problem| refuse(path, &[problem]))?;
        let vae = VaeConfig::from_json(preset.config("vae")).map_err(|problem| refuse(path, &[problem]))?;
        let map = |map: Result<ComponentMap, Problems>| map.map_err(|problems| refuse(path, &problems));
        components.push(("unet", map(ComponentMap::unet(&unet))?, DIFFUSERS_STEM));
        components.push(("vae", map(ComponentMap::vae(&vae))?, DIFFUSERS_STEM));
        for (index, (component, ..)) in layout.text().iter().enumerate() {
            let config = ClipTextConfig::from_json(preset.config(component))
                .map_err(|problem| refuse(path, &[problem]))?;
            components.push((
                component,
                map(ComponentMap::text(*layout, index, &config))?,
                TRANSFORMERS_STEM,
            ));
        }
        check_names(checkpoint, &components).map_err(|problems| refuse(path, &problems))?;

        let mut restored = Vec::new();
        for (_, map, _) in &components {
            let found = map.restore(|name| checkpoint.get(name));
            restored.push(found.map_err(|problems| refuse(path, &problems))?);
        }
        for ((component, _, stem), moved) in components.iter().zip(&restored) {
            let target = folder.join(component);
            atomic::create_folder(&target)?;
            json_file::write(target.join("config.json"), preset.config(component))?;
            let views: Vec<TensorView<'_>> = moved.iter().map(Moved::view).collect();
            let metadata = [("format".to_owned(), "pt".to_owned())].into();
            write(target.join(format!("{stem}.safetensors")), &views, &metadata)?;
        }
        for (number, (_, tokenizer)) in Family::from(*layout).text_components().iter().enumerate() {
            let target = folder.join(tokenizer);
            atomic::create_folder(&target)?;
            for (name, text) in preset.tokenizer(number > 0) {
                atomic::write_bytes(target.join(name), text.as_bytes())?;
            }
        }
        let scheduler = folder.join("scheduler");
        atomic::create_folder(&scheduler)?;
        let mut schedule = preset.config("scheduler").clone();
        schedule["prediction_type"] = json!(prediction);
        json_file::write(scheduler.join("scheduler_config.json"), &schedule)?;
        json_file::write(folder.join("model_index.json"), preset.config("model_index"))?;
        Ok(())
    }
}

impl From<Layout> for Family {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Sd1 | Layout::Sd2 => Self::StableDiffusion,
            Layout::Sdxl => Self::StableDiffusionXl,
        }
    }
}

/// Every tensor of the checkpoint is one that the components ask for, or known not to matter.
fn check_names(checkpoint: &WeightFile, components: &[(&str, ComponentMap, &str)]) -> Result<(), Problems> {
    let wanted: BTreeSet<&str> = components
        .iter()
        .flat_map(|(_, map, _)| map.entries().map(|(_, _, place)| place.name.as_str()))
        .collect();
    let unknown: Problems = checkpoint
        .tensors()
        .map(|tensor| tensor.name)
        .filter(|name| !wanted.contains(name) && !is_ballast(name))
        .map(|name| format!("`{name}` is not known"))
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(unknown) }
}

/// At most eight problems in one line.
fn refuse(path: &Path, problems: &[String]) -> ModelError {
    let shown = problems.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if problems.len() > 8 { format!("; ... ({} in all)", problems.len()) } else { String::new() };
    ModelError::Config { path: path.to_owned(), problems: shown + &more }
}
