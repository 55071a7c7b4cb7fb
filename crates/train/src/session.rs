//! A whole run, from a plan to its result on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tastemaker_data::PairSource;
use tastemaker_data::split::Split;
use tastemaker_diffusion::Denoiser;
use tastemaker_math::objectives::{Corruption, InversionModel, Objective};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::{LoraSpec, Role, Trainable};
use tastemaker_models::pipeline::{Loaded, Model, ModelSources, TextAdapters, TextEncoders};
use tastemaker_models::unet::UNet;
use tastemaker_run::{
    Adapter, Encode, Event, Finish, MixedPrecision, ModelPlan, Outcome, Plan, Problem, RunDir, RunError,
    Start,
};
use tastemaker_store::atomic;
use tastemaker_torch::error::guard;
use tastemaker_torch::{Precision, memory};
use tch::Device;

use crate::TrainError;
use crate::batch::EncodedPairs;
use crate::card::{CardFacts, card};
use crate::encode::{EncodeSettings, Encoded, encode_pairs};
use crate::fit::{Fit, fit};
use crate::recorder::Recorder;
use crate::reference::Reference;
use crate::result::{AdapterShape, result_paths, save};
use crate::start::{origin, ranks, with_network_weights};
use crate::step::{Engine, Timesteps};

/// Images per forward pass of the codec, and the pixels they may have together: its maps are as large as the pictures.
const ENCODE_BATCH: usize = 8;
const ENCODE_PIXELS: u64 = 2 << 20;

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Optimiser steps made.
    pub steps: u64,
    /// Seconds from before the first step to after the last, probes included.
    pub seconds: f64,
    /// Most memory this process held in that time, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Model folders and files, or the adapter file; see [`result_paths`].
    pub results: Vec<PathBuf>,
}

/// Carries out a plan: opens, checks, encodes, trains, writes.
///
/// `split` says which positions of `source` are trained on. The folder `plan.output_dir` gets `plan.json`,
/// `events.jsonl` and the result; a run of the same plan that is there already is made again from its start and
/// replaced. Whatever can be found wrong is found before the first step: the model's files, the data, the output folder. A
/// run that never began leaves no folder.
/// `tell` hears of every event and may end the run by an error.
///
/// # Errors
/// [`TrainError`], none of them after training unless the result cannot be written.
pub fn train(
    plan: &Plan,
    source: &dyn PairSource,
    split: &Split,
    tell: &mut dyn FnMut(&Event) -> Result<(), TrainError>,
) -> Result<Trained, TrainError> {
    let n_held_out = split.held_out.len();
    if split.train.is_empty() {
        return Err(TrainError::NoPairs { n_pairs: source.len(), n_held_out });
    }
    let plan = plan.clone().with_data(split.train.len() as u64);
    let device = Device::Cpu;
    let folder = Model::from_sources(&sources(&plan.model))?;
    let (plan, start) = with_network_weights(plan, &folder)?;
    let origin = origin(&plan)?;
    let schedule = folder.schedule()?.schedule;
    let rescaled = plan.model.rescale_betas_zero_snr;
    let schedule = if rescaled { schedule.rescale_zero_terminal_snr() } else { schedule };
    let timesteps = timesteps(&plan, &schedule)?;
    let timesteps = timesteps.as_deref().map_or(Timesteps::All, Timesteps::Among);
    let objective = plan.method.objective().map_err(RunError::from)?;
    let was_there = plan.output_dir.join("plan.json").exists();
    let dir = RunDir::create(&plan.output_dir, &plan)?;
    let mut recorder = Recorder::begin(&dir, tell)?;
    let prepared = prepare(&folder, &plan, start, source, objective.as_ref(), device, &mut recorder);
    let (networks, pairs) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(recorder);
            if !was_there {
                abandon(&dir);
            }
            return Err(error);
        }
    };
    let reference = networks.reference();
    let trainable: Vec<Trainable> = networks.learnt().flat_map(|(_, learnt)| learnt).map(share).collect();
    let work = Fit {
        engine: Engine {
            policy: &networks.policy.network,
            reference: &reference,
            text: networks.text.as_ref(),
            objective: objective.as_ref(),
            schedule: &schedule,
            timesteps,
            seed: plan.train.seed,
        },
        trainable: &trainable,
        n_text: trainable.len() - networks.policy.trainable.len(),
        pairs: &pairs,
        train: &split.train,
        held_out: &split.held_out,
        device,
    };

    let before = memory::read().map(|memory| memory.peak);
    memory::give_back();
    let knows_peak = memory::reset_peak();
    recorder.record(&Event::Start(Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        method: plan.method.name.clone(),
        device: device_in_words(&plan),
        n_pairs: split.train.len() as u64,
        n_held_out: n_held_out as u64,
        n_ties: source.n_ties() as u64,
        step: 0,
        peak_memory_bytes: before,
    }))?;
    let (began, mut steps, mut probe) = (Instant::now(), 0, None);
    let outcome = guard(&doing(&plan), || {
        fit(&work, &plan, |event| {
            match event {
                Event::Step(_) => steps += 1,
                Event::Probe(seen) => probe = Some(seen.clone()),
                _ => {}
            }
            recorder.record(event)
        })
    });
    let seconds = began.elapsed().as_secs_f64();
    let peak_memory_bytes = memory::read().filter(|_| knows_peak).map(|memory| memory.peak);
    let finish = |outcome| Event::Finish(Finish { step: steps, outcome, seconds, peak_memory_bytes });

    let results = result_paths(dir.path(), &plan);
    let trained = outcome.map_err(TrainError::from).and_then(|fitted| fitted);
    let facts = CardFacts {
        family: folder.family(),
        fingerprint: source.fingerprint(),
        n_held_out,
        origin: origin.as_deref(),
        probe: probe.as_ref(),
    };
    let saved = trained
        .and_then(|()| {
            save(
                &folder,
                &networks.learnt().collect::<Vec<_>>(),
                &networks.shapes,
                &plan,
                &schedule,
                dir.path(),
            )
        })
        .and_then(|()| write_card(&results, &card(&plan, &facts)));
    if let Err(error) = saved {
        // The run's own error matters more than one about writing it down.
        let _ = recorder.record(&finish(Outcome::Failed(error.to_string())));
        return Err(error);
    }
    recorder.record(&finish(Outcome::Completed))?;
    Ok(Trained { steps, seconds, peak_memory_bytes, results })
}

/// Writes the model card beside the results; into the folder of a result that is a whole model and the only one.
fn write_card(results: &[PathBuf], card: &str) -> Result<(), TrainError> {
    let folder = match results {
        [model] if model.join("model_index.json").is_file() => model.as_path(),
        [first, ..] => first.parent().unwrap_or(first),
        [] => return Ok(()),
    };
    let written = atomic::write_bytes(folder.join("README.md"), card.as_bytes());
    written.map_err(|error| TrainError::from(RunError::from(error)))
}

/// Everything that can still be found wrong before training: weights, then images.
fn prepare(
    folder: &Model,
    plan: &Plan,
    start: Option<LoraFile>,
    source: &dyn PairSource,
    objective: &dyn Objective,
    device: Device,
    recorder: &mut Recorder<'_>,
) -> Result<(Networks, EncodedPairs), TrainError> {
    let networks = Networks::load(folder, plan, start, objective, device)?;
    let pairs = encode(folder, plan, networks.text.as_ref(), source, device, recorder)?;
    Ok((networks, pairs))
}

/// Takes back the folder of a run that never began, so that the run can be corrected and started in the same place.
/// What cannot be removed stays, for the error that ended the run matters more.
fn abandon(dir: &RunDir) {
    let _ = fs::remove_file(dir.events_path());
    let _ = fs::remove_file(dir.plan_path());
    let _ = fs::remove_dir(dir.path());
}

/// The timesteps to train at, every one of them of the schedule.
fn timesteps(plan: &Plan, schedule: &NoiseSchedule) -> Result<Option<Vec<usize>>, RunError> {
    let Some(typed) = &plan.train.timesteps else { return Ok(None) };
    let timesteps: Vec<usize> = typed.iter().map(|&t| t as usize).collect();
    match timesteps.iter().find(|&&t| t >= schedule.len()) {
        None => Ok(Some(timesteps)),
        Some(found) => Err(RunError::Invalid(vec![Problem {
            key: "train.timesteps",
            found: found.to_string(),
            wanted: "timesteps that the model's schedule has, counted from 0",
        }])),
    }
}

/// The files that a plan names, all of them on this machine.
pub fn sources(plan: &ModelPlan) -> ModelSources {
    let path = |name: &Option<String>| name.as_ref().map(PathBuf::from);
    ModelSources {
        model: PathBuf::from(&plan.pretrained_model_name_or_path),
        config: path(&plan.model_config),
        vae: path(&plan.pretrained_vae_model_name_or_path),
        unet: path(&plan.unet_init),
        variant: plan.variant.clone(),
        prediction: plan.prediction_type,
    }
}

/// The network that learns, and the frozen copy where the reference is one.
///
/// Policy and reference run the same numeric path: masters cast to the compute type are bit for bit the weights that the
/// frozen copy holds in it, and an adapter starts at zero or beside
/// a copy of itself, so at step 0 every logit is exactly 0.
struct Networks {
    policy: Loaded<UNet>,
    /// Where they learn; otherwise captions are encoded before and encoders not kept.
    text: Option<TextEncoders>,
    frozen: Option<Loaded<UNet>>,
    adapted: bool,
    /// Of the adapters that training started from.
    shapes: BTreeMap<&'static str, AdapterShape>,
}

impl Networks {
    fn load(
        folder: &Model,
        plan: &Plan,
        start: Option<LoraFile>,
        objective: &dyn Objective,
        device: Device,
    ) -> Result<Self, TrainError> {
        let precision = precision(plan);
        let shapes = match &start {
            Some(file) => file.parts().map(|(name, part)| (name, AdapterShape::from(part))).collect(),
            None => BTreeMap::new(),
        };
        let (lora, text_loras) = match start {
            Some(file) => {
                let text = file.text.into_iter().map(|(component, part)| (component, part.into_start()));
                (Some(file.unet.into_start()), text.collect())
            }
            None => (fresh(plan), fresh_text(folder, plan)),
        };
        let adapted = lora.is_some();
        let role = if adapted { Role::Frozen } else { Role::Trained };
        let policy = folder.unet(role, precision, device, lora)?;
        let learns = !text_loras.is_empty();
        let text = learns.then(|| folder.adapted_text(text_loras, precision, device)).transpose()?;
        if policy.trainable.is_empty() && text.is_none() {
            let target_modules = fresh(plan).map_or_else(Vec::new, |spec| spec.target_modules);
            return Err(TrainError::NothingTrainable { target_modules });
        }
        let needs_copy = !adapted && needs_reference(objective);
        let frozen = needs_copy.then(|| folder.unet(Role::Frozen, precision, device, None)).transpose()?;
        Ok(Self { policy, text, frozen, adapted, shapes })
    }

    /// What learns, by component, the UNet's first.
    fn learnt(&self) -> impl Iterator<Item = (&'static str, &[Trainable])> {
        let unet = [("unet", self.policy.trainable.as_slice())];
        unet.into_iter().chain(self.text.iter().flat_map(TextEncoders::trainable))
    }

    fn reference(&self) -> Reference<'_> {
        let policy: &dyn Denoiser = &self.policy.network;
        match &self.frozen {
            Some(frozen) => Reference::Frozen(&frozen.network),
            None if self.adapted => Reference::AdapterOff { policy, switch: self.policy.switch.clone() },
            None => Reference::None,
        }
    }
}

/// The adapter of a plan that starts from none.
fn fresh(plan: &Plan) -> Option<LoraSpec> {
    let Adapter::Lora(lora) = &plan.adapter else { return None };
    let (ranks, target_modules) = (ranks(lora), lora.target_modules.clone());
    Some(LoraSpec {
        ranks,
        target_modules,
        seed: plan.train.seed,
        tensors: None,
        anchored: false,
        use_dora: lora.use_dora,
    })
}

/// The adapters of text encoders of such a plan.
fn fresh_text(folder: &Model, plan: &Plan) -> TextAdapters {
    let Adapter::Lora(lora) = &plan.adapter else { return TextAdapters::new() };
    let targets = &lora.text_encoder_target_modules;
    let components = folder.family().text_components().iter().filter(|_| !targets.is_empty());
    // Random numbers are keyed by names of layers, which both encoders share.
    let numbered = components.zip(1u64..);
    let spec = |number: u64| LoraSpec {
        ranks: ranks(lora),
        target_modules: targets.clone(),
        seed: plan.train.seed ^ (number << 32),
        tensors: None,
        anchored: false,
        use_dora: lora.use_dora,
    };
    numbered.map(|((component, _), number)| (*component, spec(number))).collect()
}

/// A second handle on what learns.
fn share(trainable: &Trainable) -> Trainable {
    Trainable { name: trainable.name.clone(), tensor: trainable.tensor.shallow_clone() }
}

/// Whether a method asks the reference for anything: its errors, or the inversion.
pub(crate) fn needs_reference(objective: &dyn Objective) -> bool {
    let reference = InversionModel::Reference;
    let inverts =
        matches!(objective.corruption(), Corruption::DdimInversion { model, .. } if model == reference);
    objective.needs_reference() || inverts
}

fn encode(
    folder: &Model,
    plan: &Plan,
    learning: Option<&TextEncoders>,
    source: &dyn PairSource,
    device: Device,
    recorder: &mut Recorder<'_>,
) -> Result<EncodedPairs, TrainError> {
    // Half precision would save little here, and SDXL's codec overflows in it.
    let codec = folder.vae(Role::Frozen, Precision::F32, device)?.network;
    let loaded;
    let text = match learning {
        Some(text) => text,
        None => {
            loaded = folder.text(precision(plan), device)?;
            &loaded
        }
    };
    let resolution = plan.data.resolution;
    let flips = !plan.data.no_hflip;
    let time_ids = plan.data.time_ids;
    let keeps_tokens = learning.is_some();
    let fitting = ENCODE_PIXELS / u64::from(resolution).pow(2);
    let batch_size = usize::try_from(fitting).unwrap_or(ENCODE_BATCH).clamp(1, ENCODE_BATCH);
    let settings = EncodeSettings { resolution, batch_size, flips, time_ids, keeps_tokens, device };
    let doing = format!("encoding {batch_size} images of {resolution} x {resolution}");
    guard(&doing, || {
        encode_pairs(source, &codec, text, &settings, &mut |Encoded { n_pairs, n_images }| {
            let n_done = n_pairs as u64;
            let event =
                Event::Encode(Encode { n_done, n_pairs: source.len() as u64, n_images: n_images as u64 });
            if n_pairs == source.len() { recorder.record(&event) } else { recorder.mention(&event) }
        })
    })?
}

fn precision(plan: &Plan) -> Precision {
    match plan.train.mixed_precision {
        MixedPrecision::No => Precision::F32,
        MixedPrecision::Bf16 => Precision::Bf16,
    }
}

fn device_in_words(plan: &Plan) -> String {
    let precision = match precision(plan) {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let n_threads = tch::get_num_threads();
    format!("CPU, {n_threads} {}, {precision}", if n_threads == 1 { "thread" } else { "threads" })
}

/// What libtorch is busy with if it stops, and what would make it fit.
fn doing(plan: &Plan) -> String {
    let (resolution, batch) = (plan.data.resolution, plan.train.train_batch_size);
    format!(
        "training on {batch} pairs of {resolution} x {resolution} at once (a smaller train_batch_size with more \
         gradient_accumulation_steps, a smaller resolution or adapter.kind = \"lora\" need less memory)"
    )
}
