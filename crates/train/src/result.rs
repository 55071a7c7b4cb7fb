//! What a run leaves behind: a model folder or an adapter file, read back before it counts.

use std::path::{Path, PathBuf};

use tastemaker_math::NoiseSchedule;
use tastemaker_models::adapters::{FILE_NAME, KOHYA_FILE_NAME, KohyaFacts, LoraFile, LoraPart};
use tastemaker_models::nn::{Role, Trainable};
use tastemaker_models::original::Layout;
use tastemaker_models::pipeline::{ModelFolder, StoredType, save_unet};
use tastemaker_run::{Adapter, Plan};
use tastemaker_torch::Precision;
use tastemaker_torch::tensors::Named;
use tch::{Device, Tensor};

use crate::TrainError;
use crate::start::ranks;

/// Where a run's result goes: `model/`, a folder in diffusers layout, or `pytorch_lora_weights.safetensors`.
pub fn result_path(output_dir: &Path, adapter: &Adapter) -> PathBuf {
    output_dir.join(match adapter {
        Adapter::Full {} => "model",
        Adapter::Lora(_) | Adapter::Continued { .. } => FILE_NAME,
    })
}

/// Writes what was trained, f32, reads it again and compares. An adapter is written twice, for diffusers and, beside it, as
/// kohya's scripts do for everything else.
///
/// # Panics
/// For a LoRA to start from that was never read: runs read it first.
pub(crate) fn save(
    source: &ModelFolder,
    trained: &[Trainable],
    plan: &Plan,
    schedule: &NoiseSchedule,
    path: &Path,
) -> Result<(), TrainError> {
    let on_host = |t: &Trainable| (t.name.clone(), t.tensor.detach().to_device(Device::Cpu));
    let written: Named = trained.iter().map(on_host).collect();
    let same = |read: &Named, path: &Path| {
        let differs =
            |(name, tensor): &(&String, &Tensor)| !read.get(*name).is_some_and(|found| found.equal(tensor));
        match written.iter().find(differs) {
            Some((tensor, _)) => Err(TrainError::ReadBack { path: path.to_owned(), tensor: tensor.clone() }),
            None => Ok(()),
        }
    };
    match &plan.adapter {
        Adapter::Full {} => {
            save_unet(source, path, &written, StoredType::F32)?;
            let read = ModelFolder::open(path)?.unet(Role::Frozen, Precision::F32, Device::Cpu, None)?;
            same(&read.parameters, path)
        }
        Adapter::Continued { network_weights, .. } => panic!("{} was not read", network_weights.display()),
        Adapter::Lora(lora) => {
            let tensors =
                written.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
            let (ranks, target_modules) = (ranks(lora), lora.target_modules.clone());
            let file = LoraFile::from(LoraPart { ranks, target_modules, tensors });
            file.write(path)?;
            same(&LoraFile::read(path)?.unet.tensors, path)?;

            let facts = kohya_facts(source, plan, schedule)?;
            let (config, twin) = (source.unet_config()?, path.with_file_name(KOHYA_FILE_NAME));
            file.write_kohya(&twin, &config, &facts)?;
            same(&LoraFile::read_kohya(&twin, facts.layout, &config)?.unet.tensors, &twin)
        }
    }
}

/// What the kohya twin says about the run.
fn kohya_facts(
    source: &ModelFolder,
    plan: &Plan,
    schedule: &NoiseSchedule,
) -> Result<KohyaFacts, TrainError> {
    let title = plan.output_dir.file_name().map_or("LoRA".into(), |name| name.to_string_lossy().into_owned());
    let steps = plan.train.max_train_steps;
    let epochs = plan.steps_per_epoch().map_or(0, |n| (steps as f64 / n).ceil() as u64);
    let training = [
        ("epoch", epochs.to_string()),
        ("learning_rate", plan.optimizer.learning_rate.to_string()),
        ("optimizer", "torch.optim.AdamW".to_owned()),
        ("output_name", title.clone()),
        ("seed", plan.train.seed.to_string()),
        ("steps", steps.to_string()),
        ("training_comment", format!("{} {}", plan.method.name, plan.method.settings)),
    ];
    Ok(KohyaFacts {
        layout: Layout::of_folder(source)?,
        prediction: schedule.prediction(),
        resolution: plan.data.resolution,
        title,
        training: training.map(|(key, value)| (key.to_owned(), value)).into(),
    })
}
