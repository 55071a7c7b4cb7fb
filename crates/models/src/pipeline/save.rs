//! Model folders out.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tastemaker_store::{StoreError, atomic, json};
use tastemaker_torch::Precision;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind};

use super::load::ModelFolder;
use super::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::ModelError;
use crate::nn::{Role, Weights};
use crate::unet::UNet;

const UNET: &str = "unet";

/// Element type of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredType {
    /// 32-bit floats: nothing is lost.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl StoredType {
    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// Writes a whole model folder: the UNet from `parameters`, everything else copied from `source` byte for byte.
///
/// Every file is whole or not there, and `model_index.json` comes last, so a folder that has one is complete.
/// Only components the index lists travel; a single-file checkpoint beside them does not.
///
/// # Errors
/// [`ModelError::Weights`] if the parameters are not exactly those of the source's UNet; [`ModelError::Store`] if
/// a file cannot be read or written, or the destination is the source.
pub fn save_unet(
    source: &ModelFolder,
    destination: impl AsRef<Path>,
    parameters: &Named,
    dtype: StoredType,
) -> Result<(), ModelError> {
    save_components(source, destination, &[(UNET, parameters)], dtype)
}

/// As [`save_unet`] for any networks of the folder, by component. Text encoders are written under our names, the published ones.
///
/// # Errors
/// As [`save_unet`].
pub fn save_components(
    source: &ModelFolder,
    destination: impl AsRef<Path>,
    components: &[(&str, &Named)],
    dtype: StoredType,
) -> Result<(), ModelError> {
    let destination = destination.as_ref();
    let new = |name: &str| components.iter().find(|(component, _)| *component == name).map(|(_, new)| *new);
    if let Some(parameters) = new(UNET) {
        check_parameters(source, destination, parameters)?;
    }
    atomic::create_folder(destination)?;
    if same_folder(source.path(), destination) {
        return Err(
            StoreError::malformed(destination, "the model itself", "another folder to write to").into()
        );
    }
    let index = destination.join("model_index.json");
    match fs::remove_file(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("write", &index, error).into());
        }
        _ => {}
    }
    for component in &source.index().components {
        let (from, to) = (source.component(component), destination.join(component));
        if let Some(parameters) = new(component) {
            atomic::create_folder(&to)?;
            copy_file(&from.join("config.json"), &to.join("config.json"))?;
            let stem = if component == UNET { DIFFUSERS_STEM } else { TRANSFORMERS_STEM };
            write_weights(&to, stem, parameters, dtype)?;
        } else if from.is_dir() {
            copy_files(&from, &to)?;
        }
    }
    Ok(copy_file(&source.path().join("model_index.json"), &index)?)
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
    dtype: StoredType,
) -> Result<(), ModelError> {
    let folder = folder.as_ref();
    atomic::create_folder(folder)?;
    json::write(folder.join("config.json"), config)?;
    write_weights(folder, stem, tensors, dtype)
}

fn write_weights(folder: &Path, stem: &str, tensors: &Named, dtype: StoredType) -> Result<(), ModelError> {
    let stored =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach().to_kind(dtype.kind()))).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    Ok(tensors::write(&folder.join(format!("{stem}.safetensors")), &stored, &metadata)?)
}

/// Builds the network from the parameters: names and shapes must be exactly those of the configuration.
fn check_parameters(source: &ModelFolder, destination: &Path, parameters: &Named) -> Result<(), ModelError> {
    let config = source.unet_config()?;
    let device = parameters.values().next().map_or(Device::Cpu, tch::Tensor::device);
    let given = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
    let weights = Weights::from_tensors(given, Role::Frozen, Precision::F32, device);
    drop(UNet::new(weights.root(), config, Precision::F32));
    match weights.finish() {
        Ok(_) => Ok(()),
        Err(report) => Err(ModelError::Weights { path: destination.join("unet"), report }),
    }
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

fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|error| StoreError::io("read", from, error))?;
    atomic::write(to, |out| io::copy(&mut source, out).map(drop))
}
