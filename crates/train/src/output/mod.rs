//! What a run leaves behind: a model folder or an adapter file, read back before it counts.

pub(crate) mod model_card;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use tastemaker_math::NoiseSchedule;
use tastemaker_models::adapters::{ChosenNoise, FILE_NAME, KOHYA_FILE_NAME, KohyaFacts, LoraFile, LoraPart};
use tastemaker_models::nn::{TensorSource, Trainable};
use tastemaker_models::original::Layout;
use tastemaker_models::pipeline::{
    Family, Model, SingleFile, Trained, pack, save as save_model, write_backbone,
};
use tastemaker_run::{Adapter, OptimizerKind, OutputLayout, Plan};
use tastemaker_torch::tensors::Named;
use tch::{Device, Tensor};

use crate::TrainError;
use crate::adapter::AdapterShape;
use crate::data::EncodeSettings;
use crate::state::is_finite;

/// What was done to get a result, which a plan alone does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunFacts {
    /// Optimizer steps made.
    pub(crate) steps: u64,
    /// Pairs that can be trained on.
    pub(crate) n_pairs: u64,
}

impl RunFacts {
    /// Pairs that these steps have used, each counted once: every one is used before any is used again.
    pub(crate) fn n_used(&self, plan: &Plan) -> u64 {
        self.n_pairs.min(self.steps.saturating_mul(plan.effective_batch()))
    }

    /// How often each was used.
    pub(crate) fn epochs(&self, plan: &Plan) -> f64 {
        (self.steps as f64 * plan.effective_batch() as f64) / self.n_pairs.max(1) as f64
    }
}

/// Where the results of a run on a model of this family go: of a full fine-tune `model/`, a folder in diffusers layout, `unet/` or
/// `transformer/`, the network alone, and `model.safetensors`, one file under original names; of an adapter
/// `pytorch_lora_weights.safetensors`.
pub fn result_paths(output_dir: &Path, plan: &Plan, family: Family) -> Vec<PathBuf> {
    let names: Vec<&str> = match &plan.adapter {
        Adapter::Full {} => {
            plan.output.output_layout.iter().map(|layout| file_name(*layout, family)).collect()
        }
        Adapter::Lora(_) | Adapter::Continued { .. } => vec![FILE_NAME],
    };
    names.into_iter().map(|name| output_dir.join(name)).collect()
}

/// What a trained model of this family is called in each layout.
pub(crate) fn file_name(layout: OutputLayout, family: Family) -> &'static str {
    match layout {
        OutputLayout::Diffusers => "model",
        OutputLayout::Unet => family.backbone(),
        OutputLayout::Original => "model.safetensors",
    }
}

/// Writes what was trained, reads it again and compares. A whole network is written in every layout of the plan; an adapter
/// twice, for diffusers and, beside it, as kohya's scripts do for everything else.
///
/// # Panics
/// For a LoRA to start from that was never read: runs read it first.
pub(crate) fn save(
    source: &Model,
    trained: &[(&'static str, &[Trainable])],
    shapes: &BTreeMap<&'static str, AdapterShape>,
    (plan, run): (&Plan, &RunFacts),
    schedule: &NoiseSchedule,
    output_dir: &Path,
) -> Result<(), TrainError> {
    match &plan.adapter {
        Adapter::Full {} => {
            let dtype = plan.output.save_precision;
            let component = source.family().backbone();
            let mut written = trained.first().map(|(_, backbone)| on_host(backbone)).unwrap_or_default();
            // Tables that are stored with the parameters and never trained.
            let stored = source.stored(component)?;
            for name in stored.names() {
                if let Entry::Vacant(place) = written.entry(name)
                    && let Some(tensor) = stored.read(place.key())
                {
                    place.insert(tensor);
                }
            }
            let unet = Trained { component, parameters: &written, dtype };
            plan.output.output_layout.iter().try_for_each(|layout| {
                save_whole(source, &unet, *layout, &output_dir.join(file_name(*layout, source.family())))
            })
        }
        Adapter::Continued { network_weights, .. } => panic!("{} was not read", network_weights.display()),
        Adapter::Lora(lora) => {
            let part = |(component, tensors): &(&'static str, &[Trainable])| {
                let AdapterShape { ranks, target_modules } = match shapes.get(component) {
                    Some(shape) => shape.clone(),
                    None => AdapterShape::planned(lora, component),
                };
                (*component, LoraPart { ranks, target_modules, tensors: on_host(tensors) })
            };
            let mut parts: BTreeMap<&'static str, LoraPart> = trained.iter().map(part).collect();
            let component = source.family().backbone();
            let unet =
                parts.remove(component).ok_or(TrainError::NothingTrainable { target_modules: Vec::new() })?;
            let noise = ChosenNoise {
                prediction: plan.model.prediction_type,
                zero_terminal_snr: plan.model.rescale_betas_zero_snr,
            };
            let file = LoraFile { unet, component, text: parts, noise };
            let path = &output_dir.join(FILE_NAME);
            file.write_of(path, Some(schedule.prediction()))?;
            same(&file, &LoraFile::read(path)?, path)?;

            let facts = kohya_facts(source, plan, run, schedule)?;
            let (config, twin) = (source.backbone_config()?, path.with_file_name(kohya_name(plan)));
            file.write_kohya(&twin, &config, &facts)?;
            same(&file, &LoraFile::read_kohya(&twin, facts.layout, &config)?, &twin)
        }
    }
}

/// What the LoRA's file for tools other than diffusers is called.
pub fn kohya_name(plan: &Plan) -> String {
    plan.output
        .output_name
        .as_ref()
        .map_or_else(|| KOHYA_FILE_NAME.to_owned(), |name| format!("{name}.safetensors"))
}

/// What was trained, on the host.
fn on_host(trained: &[Trainable]) -> Named {
    trained.iter().map(|t| (t.name.clone(), t.tensor.detach().to_device(Device::Cpu))).collect()
}

/// Whether an adapter was read back as it was written.
fn same(written: &LoraFile, read: &LoraFile, path: &Path) -> Result<(), TrainError> {
    let found: BTreeMap<&str, &LoraPart> = read.parts().collect();
    for (component, part) in written.parts() {
        let read = found.get(component);
        let differs = |(name, tensor): &(&String, &Tensor)| {
            !read.and_then(|part| part.tensors.get(*name)).is_some_and(|found| found.equal(tensor))
        };
        if let Some((name, _)) = part.tensors.iter().find(differs) {
            return Err(TrainError::ReadBack { path: path.to_owned(), tensor: name.clone() });
        }
    }
    Ok(())
}

/// Writes a trained UNet in one layout and compares what is read back, after rounding to the stored type.
fn save_whole(
    source: &Model,
    unet: &Trained<'_>,
    layout: OutputLayout,
    path: &Path,
) -> Result<(), TrainError> {
    let beyond = |name: &&String| unet.rounded(name).is_some_and(|tensor| !is_finite(&tensor));
    if let Some(tensor) = unet.parameters.keys().find(beyond) {
        return Err(TrainError::BeyondType { tensor: tensor.clone(), dtype: unet.dtype });
    }
    let read = match layout {
        OutputLayout::Diffusers => {
            save_model(source, &[*unet], path)?;
            Model::open(path)?.stored(source.family().backbone())?
        }
        OutputLayout::Unet => {
            write_backbone(source, unet, path)?;
            source.with_backbone(path)?.stored(source.family().backbone())?
        }
        OutputLayout::Original => {
            pack(source, &[*unet], path, &[("format".to_owned(), "pt".to_owned())].into())?;
            source.with_file(&SingleFile::open(path)?)?.stored(source.family().backbone())?
        }
    };
    let sound = |name: &&String| {
        unet.rounded(name).zip(read.read(name)).is_some_and(|(wanted, found)| found.equal(&wanted))
    };
    match unet.parameters.keys().find(|name| !sound(name)) {
        Some(tensor) => Err(TrainError::ReadBack { path: path.to_owned(), tensor: tensor.clone() }),
        None => Ok(()),
    }
}

/// What the kohya twin says about the run.
///
/// Source: the metadata that kohya-ss/sd-scripts train_network.py writes. Images there are pairs here, a step's batch on all
/// devices.
fn kohya_facts(
    source: &Model,
    plan: &Plan,
    run: &RunFacts,
    schedule: &NoiseSchedule,
) -> Result<KohyaFacts, TrainError> {
    let of_folder = || plan.output_dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let title = plan.output.output_name.clone().or_else(of_folder).unwrap_or_else(|| "LoRA".to_owned());
    let (optimizer, train) = (&plan.optimizer, &plan.train);
    let rate = plan.effective_learning_rate();
    let kind = match optimizer.optimizer_type {
        OptimizerKind::AdamW => "torch.optim.adamw.AdamW",
        OptimizerKind::AdamW8bit => "bitsandbytes.optim.adamw.AdamW8bit",
        OptimizerKind::Adafactor => "transformers.optimization.Adafactor",
    };
    let scheduler = serde_json::to_value(optimizer.lr_scheduler).unwrap_or_default();
    let epochs = run.epochs(plan).ceil() as u64;
    // What is not set is `None` there.
    let max_token_length = match plan.model.max_token_length {
        75 => "None".to_owned(),
        length => length.to_string(),
    };
    let mut training = vec![
        ("batch_size_per_device", train.train_batch_size.to_string()),
        ("epoch", epochs.to_string()),
        ("gradient_accumulation_steps", train.gradient_accumulation_steps.to_string()),
        ("gradient_checkpointing", python(train.gradient_checkpointing).to_owned()),
        ("learning_rate", rate.to_string()),
        ("lr_scheduler", scheduler.as_str().unwrap_or_default().to_owned()),
        ("lr_warmup_steps", optimizer.lr_warmup_steps.to_string()),
        ("max_grad_norm", optimizer.max_grad_norm.to_string()),
        ("max_token_length", max_token_length),
        ("max_train_steps", train.max_train_steps.to_string()),
        ("mixed_precision", train.mixed_precision.mixed_precision_name().to_owned()),
        ("num_epochs", epochs.to_string()),
        ("num_processes", plan.n_processes.to_string()),
        ("num_train_images", run.n_used(plan).to_string()),
        ("optimizer", kind.to_owned()),
        ("output_name", title.clone()),
        ("seed", train.seed.to_string()),
        ("steps", run.steps.to_string()),
        ("total_batch_size", plan.effective_batch().to_string()),
        ("training_comment", format!("{} {}", plan.method.name, plan.method.settings)),
        ("unet_lr", rate.to_string()),
    ];
    if EncodeSettings::trains_text(plan) {
        training.push(("text_encoder_lr", (rate * plan.text_rate()).to_string()));
    }
    Ok(KohyaFacts {
        layout: Layout::of_folder(source)?,
        prediction: schedule.prediction(),
        resolution: plan.data.resolution,
        title,
        training: training.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    })
}

/// A truth as Python writes it.
fn python(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}
