//! A whole run, from a plan to its result on disk.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tastemaker_data::PairSource;
use tastemaker_data::cache::CacheFolder;
use tastemaker_data::split::Split;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_run::health::{Limits, Rule, outside_published};
use tastemaker_run::{Event, Finish, ModelPlan, Outcome, Plan, Problem, RunDir, RunError, Start};
use tastemaker_store::atomic;
use tastemaker_torch::error::guard;
use tastemaker_torch::{Precision, memory};
use tch::Device;

use crate::TrainError;
use crate::adapter::{origin, with_network_weights};
use crate::checkpoint::checkpointing::{Keeper, settle_best};
use crate::checkpoint::{self, Resume};
use crate::data::cache::{self, precision};
use crate::data::encode::Captions;
use crate::data::labels::{labels, soft_labels};
use crate::data::{Feed, Making, ahead};
use crate::distributed::Processes;
use crate::logger::Recorder;
use crate::output::model_card::{CardFacts, card};
use crate::output::{result_paths, save};
use crate::setup::{Parts, Prepared, prepare};
use crate::step::Timesteps;
use crate::train_loop::{Ended, Fit, fit};

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Optimizer steps made.
    pub steps: u64,
    /// Seconds from before the first step to after the last, probes included.
    pub seconds: f64,
    /// Most memory held in that time on the device, where somebody tells; on the CPU that of the whole process.
    pub peak_memory_bytes: Option<u64>,
    /// Model folders and files, or the adapter file; see [`result_paths`].
    pub results: Vec<PathBuf>,
}

/// How a plan is carried out, beside what it says.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where to go on from.
    pub resume: Option<&'a Resume>,
    /// Asked behind every step whether to save and stop.
    pub stop: &'a dyn Fn() -> bool,
    /// The processes that train together; they share a disk.
    pub ranks: Processes<'a>,
    /// Where networks live.
    pub device: Device,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { resume: None, stop: &|| false, ranks: Processes::default(), device: Device::Cpu }
    }
}

/// Carries out a plan: opens, checks, encodes, trains, writes.
///
/// `split` says which positions of `source` are trained on. The folder `plan.output_dir` gets `plan.json`,
/// `events.jsonl`, checkpoints and the result; a run of the same plan that is there already is made again from its start and
/// replaced, unless it left checkpoints. Whatever can be found wrong is found before the first step: the model's files, the
/// data, the output folder. A run that never began leaves no folder.
/// `tell` hears of every event and may end the run by an error.
///
/// # Errors
/// [`TrainError`], none of them after training unless the result cannot be written; [`TrainError::Stopped`] if it was
/// told to, and [`TrainError::Unfinished`] if there are checkpoints and `options` do not say to go on from one.
pub fn train(
    plan: &Plan,
    source: &dyn PairSource,
    split: &Split,
    options: Options<'_>,
    tell: &mut dyn FnMut(&Event) -> Result<(), TrainError>,
) -> Result<Trained, TrainError> {
    let n_held_out = split.held_out.len();
    if split.train.is_empty() {
        return Err(TrainError::NoPairs { n_pairs: source.len(), n_held_out, n_skipped: 0 });
    }
    let objective = plan.method.objective().map_err(RunError::from)?;
    let labels = labels(source);
    if labels.is_some() && !objective.is_unpaired() {
        return Err(TrainError::SingleImages { method: objective.name() });
    }
    let soft_labels = objective.needs().soft_label.then(|| soft_labels(source));
    if soft_labels.as_ref().is_some_and(HashMap::is_empty) {
        return Err(TrainError::NoSoftLabels { method: objective.name() });
    }
    let plan = plan.clone().with_data(split.train.len() as u64);
    let device = options.device;
    let folder = Model::from_sources(&sources(&plan.model))?;
    let (plan, start) = with_network_weights(plan, &folder)?;
    let origin = origin(&plan)?;
    let schedule = folder.schedule()?.schedule;
    let rescaled = plan.model.rescale_betas_zero_snr;
    let schedule = if rescaled { schedule.rescale_zero_terminal_snr() } else { schedule };
    let timesteps = timesteps(&plan, &schedule)?;
    let timesteps = timesteps.as_deref().map_or(Timesteps::All, Timesteps::Among);
    let checkpoint = going_on(&plan.output_dir, options.resume)?;
    let was_there = plan.output_dir.join("plan.json").exists();
    let ranks = options.ranks;
    let limits = Limits::of(&objective);
    // All of them look for checkpoints before the first of them writes anything.
    ranks.wait()?;
    let dir = match ranks.is_first() {
        true => RunDir::create(&plan.output_dir, &plan)?,
        false => RunDir::at(&plan.output_dir),
    };
    let mut recorder = match (&checkpoint, ranks.is_first()) {
        (_, false) => Recorder::silent(limits, tell),
        (Some(_), true) => Recorder::go_on(&dir, limits, tell)?,
        (None, true) => Recorder::begin(&dir, limits, tell)?,
    };
    let parts = Parts {
        folder: &folder,
        plan: &plan,
        source,
        split,
        objective: &objective,
        schedule: &schedule,
        timesteps,
        soft_labels: soft_labels.as_ref(),
        labels: labels.as_ref(),
        ranks,
        device,
    };
    let prepared = prepare(&parts, start, origin.as_deref(), checkpoint.as_deref(), &mut recorder);
    let Prepared { networks, pairs, order, bank, identity, easel, mut state } = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(recorder);
            if !was_there && ranks.is_first() {
                abandon(&dir);
            }
            return Err(error);
        }
    };
    let reference = networks.reference();
    let trainable = networks.shared();
    let held_out: Vec<u64> = order.held_out.iter().map(|&position| source.id(position).0).collect();
    let work = Fit {
        engine: parts.engine(&networks.policy.network, &reference, networks.text.as_ref()),
        trainable: &trainable,
        order: &order,
        held_out: &held_out,
        bank: bank.as_ref(),
        ranks,
    };
    let making = Making { augmentation: cache::augmentation(&plan), with_losers: order.with_losers, device };
    let save_in = |path: &Path| {
        save(&folder, &networks.learned().collect::<Vec<_>>(), &networks.shapes, &plan, &schedule, path)
    };

    let generate = |step| match &easel {
        Some(easel) => easel.generate(&networks.policy.network, networks.text.as_ref(), step, ranks),
        None => Ok(Vec::new()),
    };

    let before = memory::read_on(device).map(|memory| memory.peak);
    memory::give_back();
    let knows_peak = memory::reset_peak_on(device);
    let start = Event::Start(Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        method: plan.method.name.clone(),
        device: device_in_words(device, &plan),
        n_pairs: order.train.len() as u64,
        n_held_out: n_held_out as u64,
        n_ties: source.n_ties() as u64,
        n_skipped: (source.skipped().len() - source.n_ties()) as u64,
        step: state.step,
        peak_memory_bytes: before,
    });
    recorder.start(&dir, &plan, &start)?;
    if state.step == 0 {
        let n_weights = networks.policy.parameters.values().map(|tensor| tensor.numel() as u64).sum();
        recorder.warn(&outside_published(&plan, n_weights))?;
    }
    let began = Instant::now();
    let mut keeper = Keeper {
        recorder: &mut recorder,
        dir: &dir,
        plan: &plan,
        identity: &identity,
        trainable: &trainable,
        save_adapter: &save_in,
        ranks,
        generate: &generate,
        stop: options.stop,
        probe: None,
        ended_by: None,
    };
    let rest = order.clone().over(state.step..plan.train.max_train_steps).of_rank(ranks.share());
    let mut run = |feed: &mut Feed<'_>| {
        if state.step == 0 {
            keeper.images(0)?;
        }
        fit(&work, &plan, &mut state, feed, &mut keeper)
    };
    let outcome = guard(&doing(&plan), || match pairs {
        Some(cached) => ahead(move || Ok(cached), rest, making, &mut run),
        None => {
            let open = || cache::open_live(&plan, &folder, source, device);
            ahead(open, rest, making, &mut run)
        }
    });
    let (probe, ended_by) = (keeper.probe, keeper.ended_by);
    let seconds = began.elapsed().as_secs_f64();
    let peak_memory_bytes = memory::read_on(device).filter(|_| knows_peak).map(|memory| memory.peak);
    let steps = state.step;
    let finish = |outcome| Event::Finish(Finish { step: steps, outcome, seconds, peak_memory_bytes });

    let results = result_paths(dir.path(), &plan);
    let ended = outcome.map_err(TrainError::from).and_then(|fitted| fitted);
    let facts = CardFacts {
        family: folder.family(),
        fingerprint: source.fingerprint(),
        n_held_out,
        origin: origin.as_deref(),
        probe: probe.as_ref(),
    };
    let saved = ended.and_then(|ended| {
        if ended == Ended::Stopped {
            return Ok(ended);
        }
        let keeps_best = plan.logging.on_alarm == Rule::KeepBest;
        if let Some(average) = state.average.as_ref().filter(|_| !keeps_best) {
            average.settle(&trainable);
        }
        if ranks.is_first() {
            if keeps_best {
                settle_best(&dir, &recorder, &trainable)?;
            }
            save_in(dir.path())?;
            write_card(&results, &card(&plan, &facts))?;
        }
        ranks.wait()?;
        Ok(ended)
    });
    match saved {
        Err(error) => {
            // The run's own error matters more than one about writing it down.
            let _ = recorder.record(&finish(Outcome::Failed(error.to_string())));
            Err(error)
        }
        Ok(Ended::Stopped) => {
            recorder.record(&finish(Outcome::Stopped))?;
            match ended_by {
                Some(alarm) => Err(TrainError::EndedByAlarm { step: steps, alarm }),
                None => Err(TrainError::Stopped { step: Some(steps) }),
            }
        }
        Ok(Ended::Completed) => {
            recorder.record(&finish(Outcome::Completed))?;
            Ok(Trained { steps, seconds, peak_memory_bytes, results })
        }
    }
}

/// The checkpoint to go on from; a folder with checkpoints is not begun anew.
fn going_on(output_dir: &Path, resume: Option<&Resume>) -> Result<Option<PathBuf>, TrainError> {
    match (resume, checkpoint::list(output_dir).pop()) {
        (Some(resume), _) => checkpoint::find(output_dir, resume),
        (None, None) => Ok(None),
        (None, Some((step, _))) => {
            let checkpoint = format!("checkpoint-{step}");
            Err(TrainError::Unfinished { path: output_dir.to_owned(), checkpoint })
        }
    }
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

/// Makes this process's share of the cache of a plan, and says where it is and how large it is in bytes by now.
///
/// `share` is the number of this process and how many there are, `device` where networks encode. `tell` hears of [`Event::Encode`].
///
/// # Errors
/// [`TrainError`] if the model or the data cannot be read, or the folder holds the cache of something else.
pub fn cache(
    plan: &Plan,
    source: &dyn PairSource,
    (share, device): ((usize, usize), Device),
    tell: &mut dyn FnMut(&Event) -> Result<(), TrainError>,
) -> Result<CacheFolder, TrainError> {
    let folder = Model::from_sources(&sources(&plan.model))?;
    let (plan, _) = with_network_weights(plan.clone(), &folder)?;
    let settings = cache::caching(&plan, device, share);
    Ok(cache::cache(&plan, &folder, source, &Captions::of(source), &settings, tell)?.0)
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

fn device_in_words(device: Device, plan: &Plan) -> String {
    let precision = match precision(plan) {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::F16 => "fp16",
    };
    if let Device::Cuda(index) = device {
        return format!("CUDA device {index}, {precision}");
    }
    let n_threads = tch::get_num_threads();
    format!("CPU, {n_threads} {}, {precision}", if n_threads == 1 { "thread" } else { "threads" })
}

/// What libtorch is busy with if it stops, and what would make it fit.
fn doing(plan: &Plan) -> String {
    let (resolution, batch) = (plan.data.resolution, plan.train.train_batch_size);
    format!(
        "training on {batch} pairs of {resolution} x {resolution} at once (a smaller train_batch_size with more \
         gradient_accumulation_steps, a smaller resolution or adapter_type = \"lora\" need less memory)"
    )
}
