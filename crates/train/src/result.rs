//! What a run leaves behind: a model folder or an adapter file, read back before it counts.

use std::path::{Path, PathBuf};

use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::nn::{Role, Trainable};
use tastemaker_models::pipeline::{ModelFolder, StoredType, save_unet};
use tastemaker_run::Adapter;
use tastemaker_torch::Precision;
use tastemaker_torch::tensors::Named;
use tch::Device;

use crate::TrainError;

/// Where a run's result goes: `model/`, a folder in diffusers layout, or `pytorch_lora_weights.safetensors`.
pub fn result_path(output_dir: &Path, adapter: &Adapter) -> PathBuf {
    output_dir.join(match adapter {
        Adapter::Full {} => "model",
        Adapter::Lora { .. } => FILE_NAME,
    })
}

/// Writes what was trained, f32, reads it again and compares.
pub(crate) fn save(
    source: &ModelFolder,
    trained: &[Trainable],
    adapter: &Adapter,
    path: &Path,
) -> Result<(), TrainError> {
    let on_host = |t: &Trainable| (t.name.clone(), t.tensor.detach().to_device(Device::Cpu));
    let written: Named = trained.iter().map(on_host).collect();
    let read = match adapter {
        Adapter::Full {} => {
            save_unet(source, path, &written, StoredType::F32)?;
            ModelFolder::open(path)?.unet(Role::Frozen, Precision::F32, Device::Cpu, None)?.parameters
        }
        Adapter::Lora { rank, alpha, target_modules } => {
            let tensors =
                written.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
            let (rank, target_modules) = (i64::from(*rank), target_modules.clone());
            LoraFile { rank, alpha: *alpha, target_modules, tensors }.write(path)?;
            LoraFile::read(path)?.tensors
        }
    };
    let same =
        |(name, tensor): &(&String, &tch::Tensor)| read.get(*name).is_some_and(|found| found.equal(tensor));
    match written.iter().find(|entry| !same(entry)) {
        Some((tensor, _)) => Err(TrainError::ReadBack { path: path.to_owned(), tensor: tensor.clone() }),
        None => Ok(()),
    }
}
