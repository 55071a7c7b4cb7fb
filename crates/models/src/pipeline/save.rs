//! Models out.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_math::schedule::Prediction;
use tastemaker_store::dtype::DType;
use tastemaker_store::{StoreError, atomic, json as json_file};
use tastemaker_torch::kind_of;
use tastemaker_torch::tensors::{self, Named, Raw};
use tastemaker_weights::check_finite;
use tastemaker_weights::safetensors::{TensorView, write};
use tch::{Device, Tensor};

use super::model::Model;
use super::part::{Part, copy_file};
use super::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::ModelError;
use crate::backbone::Backbone;
use crate::nn::{Role, Weights};
use crate::place::Moved;

/// A network to write in place of a model's own.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// Which: `unet`, `transformer`, `text_encoder` or `text_encoder_2`.
    pub component: &'a str,
    /// Its parameters by their diffusers names.
    pub parameters: &'a Named,
    /// The element type to store them in.
    pub dtype: DType,
}

impl Trained<'_> {
    /// A parameter as it will be read back, rounded to the stored type.
    pub fn rounded(&self, name: &str) -> Option<Tensor> {
        Some(self.parameters.get(name)?.detach().to_kind(kind_of(self.dtype)))
    }

    /// Checks that every one of the parameters to write to `path` is finite there.
    fn check_finite(&self, path: &Path) -> Result<(), ModelError> {
        let beyond = |name: &&String| self.rounded(name).is_some_and(|tensor| !tensors::is_finite(&tensor));
        match self.parameters.keys().find(beyond) {
            None => Ok(()),
            Some(name) => {
                let found = format!("tensor `{name}` with NaN or infinite numbers in {}", self.dtype);
                let wanted = "finite numbers: another type to write, or weights that hold none";
                Err(StoreError::malformed(path, found, wanted).into())
            }
        }
    }

    /// The bytes to write to `path`.
    pub(crate) fn raw(&self, path: &Path) -> Result<Vec<Raw>, ModelError> {
        self.check_finite(path)?;
        let raw = |(name, tensor): (&String, &Tensor)| {
            let rounded = tensor.detach().to_kind(kind_of(self.dtype));
            tensors::raw(path, &Named::from([(name.clone(), rounded)]))
        };
        Ok(self.parameters.iter().map(raw).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Builds the network from the parameters: names and shapes must be exactly those of the configuration. Text encoders are
    /// never trained whole, only merged with an adapter, which keeps names and shapes.
    fn check(&self, model: &Model, destination: &Path) -> Result<(), ModelError> {
        if self.component != model.family().backbone() {
            return Ok(());
        }
        let config = model.backbone_config()?;
        let device = self.parameters.values().next().map_or(Device::Cpu, Tensor::device);
        let given: Named =
            self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        let weights = Weights::from_source(given, Role::Frozen, DType::F32, device);
        drop(Backbone::new(weights.root(), config, DType::F32));
        match weights.finish() {
            Ok(_) => Ok(()),
            Err(report) => {
                Err(ModelError::Weights { path: destination.to_owned(), report: Box::new(report) })
            }
        }
    }
}

/// Writes a whole model folder: the networks that are given, everything else as it is, components of a folder byte for byte.
///
/// The folder is whole or not there; one that is there already is replaced.
/// Only components the index lists travel; a single-file checkpoint beside them does not.
///
/// # Errors
/// [`ModelError::Weights`] if the parameters are not exactly those of the model's network; [`ModelError::Store`] if
/// a file cannot be read or written, or the destination is the model itself.
pub fn save(model: &Model, trained: &[Trained<'_>], destination: impl AsRef<Path>) -> Result<(), ModelError> {
    let destination = destination.as_ref();
    for network in trained {
        network.check(model, &destination.join(network.component))?;
    }
    if same_folder(&model.path, destination) {
        return Err(
            StoreError::malformed(destination, "the model itself", "another folder to write to").into()
        );
    }
    atomic::write_folder(destination, |place| {
        for component in &model.index.components {
            let target = place.join(component);
            match trained.iter().find(|network| network.component == component) {
                Some(network) => write_trained(model, network, &target)?,
                None => write_part(model, component, &target)?,
            }
        }
        Ok(model.index_config.write(&place.join("model_index.json"))?)
    })
}

/// Writes the network that predicts alone, as a folder that diffusers' `UNet2DConditionModel.from_pretrained` or
/// `SD3Transformer2DModel.from_pretrained` loads.
///
/// # Errors
/// As [`save`].
pub fn write_backbone(
    model: &Model,
    backbone: &Trained<'_>,
    folder: impl AsRef<Path>,
) -> Result<(), ModelError> {
    backbone.check(model, folder.as_ref())?;
    atomic::write_folder(folder, |place| write_trained(model, backbone, place))
}

fn write_trained(model: &Model, network: &Trained<'_>, folder: &Path) -> Result<(), ModelError> {
    atomic::create_folder(folder)?;
    model.config(network.component).write(&folder.join("config.json"))?;
    network.check_finite(folder)?;
    write_weights(folder, stem(network.component), network.parameters, network.dtype)
}

fn stem(component: &str) -> &'static str {
    if component.starts_with("text") { TRANSFORMERS_STEM } else { DIFFUSERS_STEM }
}

fn write_part(model: &Model, component: &str, target: &Path) -> Result<(), ModelError> {
    let Some(part) = model.parts.get(component).filter(|part| part.exists()) else { return Ok(()) };
    match part {
        Part::Files(files) => {
            atomic::create_folder(target)?;
            for (name, text) in files {
                atomic::write_bytes(target.join(name), text.as_bytes())?;
            }
        }
        // A part of the model's own, with all that lies there.
        Part::Folder(folder) if *folder == model.path.join(component) || !is_network(component) => {
            if is_network(component) {
                model.stored(component)?.check_finite()?;
            }
            copy_files(folder, target)?;
        }
        Part::Folder(_) | Part::Held { .. } => {
            atomic::create_folder(target)?;
            let stored = model.stored(component)?;
            let tensors: Vec<Moved<'_>> = stored.tensors().collect();
            let views: Vec<TensorView<'_>> = tensors.iter().map(Moved::view).collect();
            views.iter().try_for_each(|view| check_finite(stored.path(), view))?;
            model.config(component).write(&target.join("config.json"))?;
            write(target.join(format!("{}.safetensors", stem(component))), &views, &pytorch())?;
        }
    }
    if component == "scheduler" { write_noise(model, target) } else { Ok(()) }
}

fn is_network(component: &str) -> bool {
    ["unet", "transformer", "vae"].contains(&component) || component.starts_with("text_encoder")
}

/// What was said of the noise when the model was opened, the copy says too. Where noise levels are brought to end in pure
/// noise, images are drawn from there.
fn write_noise(model: &Model, folder: &Path) -> Result<(), ModelError> {
    let mut config = model.scheduler_config().value()?;
    let before = config.clone();
    let Some(entries) = config.as_object_mut() else { return Ok(()) };
    if let Some(prediction) = model.prediction.filter(|prediction| *prediction != Prediction::Flow) {
        entries.insert("prediction_type".to_owned(), json!(prediction));
    }
    if let Some(shift) = model.shift {
        entries.insert("shift".to_owned(), json!(shift));
        entries.entry("use_dynamic_shifting").and_modify(|is_dynamic| *is_dynamic = json!(false));
    }
    if model.zero_terminal_snr && entries.get("rescale_betas_zero_snr") != Some(&json!(true)) {
        entries.insert("rescale_betas_zero_snr".to_owned(), json!(true));
        entries.insert("timestep_spacing".to_owned(), json!("trailing"));
    }
    if config != before {
        json_file::write(folder.join("scheduler_config.json"), &config)?;
    }
    Ok(())
}

/// Writes one component: `config.json` and `<stem>.safetensors`.
///
/// # Errors
/// [`ModelError::Store`] if the folder cannot be written; [`ModelError::Torch`].
pub fn write_component(
    folder: impl AsRef<Path>,
    stem: &str,
    config: &Value,
    tensors: &Named,
    dtype: DType,
) -> Result<(), ModelError> {
    let folder = folder.as_ref();
    atomic::create_folder(folder)?;
    json_file::write(folder.join("config.json"), config)?;
    write_weights(folder, stem, tensors, dtype)
}

fn write_weights(folder: &Path, stem: &str, tensors: &Named, dtype: DType) -> Result<(), ModelError> {
    let path = folder.join(format!("{stem}.safetensors"));
    Ok(tensors::write_as(&path, tensors, kind_of(dtype), &pytorch())?)
}

/// What readers of safetensors expect in the header.
fn pytorch() -> std::collections::BTreeMap<String, String> {
    [("format".to_owned(), "pt".to_owned())].into()
}

fn same_folder(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Copies every file of a folder; components have no sub-folders.
fn copy_files(from: &Path, to: &Path) -> Result<(), StoreError> {
    atomic::create_folder(to)?;
    let fail = |error| StoreError::io("read", from, error);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(from).map_err(fail)? {
        files.push(entry.map_err(fail)?.path());
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().expect("an entry of a folder has a name");
        copy_file(file, &to.join(name))?;
    }
    Ok(())
}
