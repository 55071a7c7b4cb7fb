//! A whole run, from a plan to its result on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tastemaker_data::PairSource;
use tastemaker_data::cache::CacheFolder;
use tastemaker_data::split::Split;
use tastemaker_models::pipeline::Model;
use tastemaker_run::health::{Limits, Rule, outside_published};
use tastemaker_run::{Event, Finish, Outcome, Plan, Probe, RunDir, RunError, Start};
use tastemaker_store::atomic;
use tastemaker_torch::error::guard;
use tastemaker_torch::memory;
use tch::Device;

use crate::TrainError;
use crate::adapter::with_network_weights;
use crate::checkpoint::checkpointing::{Checkpointing, restore_best};
use crate::checkpoint::{self, Resume};
use crate::data::cache::{Encoder, OnEvent};
use crate::data::{EncodeSettings, Feed, Rank, prefetch};
use crate::distributed::ProcessGroup;
use crate::logger::{Logger, open_log};
use crate::output::model_card::{CardFacts, card};
use crate::output::result_paths;
pub use crate::setup::sources;
use crate::setup::{Prepared, RunInputs, prepare};
use crate::train_loop::{Ended, TrainLoop};

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Optimizer steps done.
    pub steps: u64,
    /// Seconds from before the first step to after the last, validation included.
    pub seconds: f64,
    /// Most memory held in that time on the device, where it is known; on the CPU that of the whole process.
    pub peak_memory_bytes: Option<u64>,
    /// Model folders and files, or the adapter file; see [`result_paths`].
    pub results: Vec<PathBuf>,
}

/// How a plan is carried out, beside what it says.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// What to resume from.
    pub resume: Option<&'a Resume>,
    /// Asked after every step whether to save and stop.
    pub stop: &'a dyn Fn() -> bool,
    /// The processes that train together; they share a disk.
    pub ranks: ProcessGroup<'a>,
    /// Where networks live.
    pub device: Device,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { resume: None, stop: &|| false, ranks: ProcessGroup::default(), device: Device::Cpu }
    }
}

/// Carries out a plan: opens, checks, encodes, trains, writes.
///
/// `split` says which positions of `source` are trained on. The folder `plan.output_dir` gets `plan.json`,
/// `events.jsonl`, checkpoints and the result; a run of the same plan that is there already is started again and
/// replaced, unless it left checkpoints. Whatever can be found wrong is found before the first step: the model's files, the
/// data, the output folder. A run that never began leaves no folder.
/// `on_event` is called with every event and may end the run by an error.
///
/// # Errors
/// [`TrainError`], none of them after training unless the result cannot be written; [`TrainError::Stopped`] if it was
/// asked to, and [`TrainError::Unfinished`] if there are checkpoints and `options` do not say to resume from one.
pub fn train(
    plan: &Plan,
    source: &dyn PairSource,
    split: &Split,
    options: Options<'_>,
    on_event: &mut dyn FnMut(&Event) -> Result<(), TrainError>,
) -> Result<Trained, TrainError> {
    let ranks = options.ranks;
    let (inputs, lora) = RunInputs::open(plan, source, split, ranks, options.device)?;
    let plan = &inputs.plan;
    let checkpoint = resume_from(&plan.output_dir, options.resume)?;
    let was_there = plan.output_dir.join("plan.json").exists();
    // All ranks list checkpoints before the first of them writes anything.
    ranks.barrier()?;
    let (dir, log) = match ranks.is_first() {
        true => {
            let dir = RunDir::create(&plan.output_dir, plan)?;
            let log = open_log(&dir, checkpoint.is_some())?;
            (dir, Some(log))
        }
        false => (RunDir::at(&plan.output_dir), None),
    };
    let mut logger = Logger::new(log, Limits::of(&inputs.objective), on_event);
    let mut prepared = match prepare(&inputs, lora, checkpoint.as_deref(), &mut logger) {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(logger);
            if !was_there && ranks.is_first() {
                abandon(&dir);
            }
            return Err(error);
        }
    };
    start(&inputs, &prepared, &dir, &mut logger)?;
    let run = run_loop(&inputs, &mut prepared, &dir, &mut logger, options.stop);
    let ended = run.ended.and_then(|ended| {
        if ended == Ended::Completed {
            write_results(&inputs, &prepared, &dir, &logger, run.probe.as_ref())?;
        }
        Ok(ended)
    });
    let (step, seconds, peak_memory_bytes) = (prepared.state.step, run.seconds, run.peak_memory_bytes);
    let finish = |outcome| Event::Finish(Finish { step, outcome, seconds, peak_memory_bytes });
    match ended {
        Err(error) => {
            // The run's own error matters more than one about writing it down.
            let _ = logger.record(&finish(Outcome::Failed(error.to_string())));
            Err(error)
        }
        Ok(Ended::Stopped) => {
            logger.record(&finish(Outcome::Stopped))?;
            match run.ended_by {
                Some(alarm) => Err(TrainError::EndedByAlarm { step, alarm }),
                None => Err(TrainError::Stopped { step: Some(step) }),
            }
        }
        Ok(Ended::Completed) => {
            logger.record(&finish(Outcome::Completed))?;
            let results = result_paths(dir.path(), plan);
            Ok(Trained { steps: step, seconds, peak_memory_bytes, results })
        }
    }
}

/// The checkpoint to resume from; a folder with checkpoints is not started again without being asked to.
fn resume_from(output_dir: &Path, resume: Option<&Resume>) -> Result<Option<PathBuf>, TrainError> {
    match (resume, checkpoint::list(output_dir).pop()) {
        (Some(resume), _) => checkpoint::find(output_dir, resume),
        (None, None) => Ok(None),
        (None, Some((step, _))) => {
            let checkpoint = format!("checkpoint-{step}");
            Err(TrainError::Unfinished { path: output_dir.to_owned(), checkpoint })
        }
    }
}

/// Takes back the folder of a run that never began, so that the run can be corrected and started in the same place.
/// What cannot be removed stays, for the error that ended the run matters more.
fn abandon(dir: &RunDir) {
    let _ = fs::remove_file(dir.events_path());
    let _ = fs::remove_file(dir.plan_path());
    let _ = fs::remove_dir(dir.path());
}

/// Logs that training starts, and what is odd about it.
fn start(
    inputs: &RunInputs<'_>,
    prepared: &Prepared<'_>,
    dir: &RunDir,
    logger: &mut Logger<'_>,
) -> Result<(), TrainError> {
    let RunInputs { plan, source, split, device, .. } = inputs;
    let start = Event::Start(Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        method: plan.method.name.clone(),
        device: device_in_words(*device, plan),
        n_pairs: prepared.order.train.len() as u64,
        n_held_out: split.held_out.len() as u64,
        n_ties: source.n_ties() as u64,
        n_skipped: (source.skipped().len() - source.n_ties()) as u64 + prepared.n_unreadable,
        step: prepared.state.step,
        peak_memory_bytes: memory::read_on(*device).map(|memory| memory.peak),
    });
    logger.start(dir, plan, &start)?;
    if prepared.state.step > 0 {
        return Ok(());
    }
    let parameters = prepared.networks.policy.parameters.values();
    logger.warn(&outside_published(plan, parameters.map(|tensor| tensor.numel() as u64).sum()))
}

/// What came of the loop.
struct LoopOutcome {
    ended: Result<Ended, TrainError>,
    /// The last validation.
    probe: Option<Probe>,
    /// The alarm that ended it.
    ended_by: Option<String>,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
}

/// Runs the steps that are not done yet, on batches that are prefetched.
fn run_loop(
    inputs: &RunInputs<'_>,
    prepared: &mut Prepared<'_>,
    dir: &RunDir,
    logger: &mut Logger<'_>,
    stop: &dyn Fn() -> bool,
) -> LoopOutcome {
    let RunInputs { plan, source, ranks, device, .. } = inputs;
    let ranks = *ranks;
    let Prepared {
        networks, trainable, encoder, cached, order, precomputed, identity, images, state, ..
    } = prepared;
    let (networks, trainable, order, images) = (&*networks, trainable.as_slice(), &*order, images.as_ref());
    let reference = networks.reference();
    let held_out: Vec<u64> = order.held_out.iter().map(|&position| source.id(position).0).collect();
    let train_loop = TrainLoop {
        plan,
        engine: inputs.engine(&networks.policy.network, &reference, networks.text.as_ref()),
        trainable,
        order,
        held_out: &held_out,
        precomputed: precomputed.as_ref(),
        ranks,
    };
    let mut callbacks = Checkpointing {
        logger,
        dir,
        plan,
        identity,
        trainable,
        save_adapter: &|folder| inputs.save(networks, folder),
        ranks,
        generate: &|step| match images {
            Some(images) => images.generate(&networks.policy.network, networks.text.as_ref(), step, ranks),
            None => Ok(Vec::new()),
        },
        stop,
        probe: None,
        ended_by: None,
    };
    memory::give_back();
    let knows_peak = memory::reset_peak_on(*device);
    let began = Instant::now();
    let rest = order.clone().over(state.step..plan.train.max_train_steps).of_rank(ranks.rank());
    let options = inputs.batch_options(order);
    let mut body = |feed: &mut Feed<'_>| {
        if state.step == 0 {
            callbacks.images(0)?;
        }
        train_loop.run(state, feed, &mut callbacks)
    };
    let ended = guard(&doing(plan), || match cached.take() {
        Some(cached) => prefetch(move || Ok(cached), rest, options, &mut body),
        None => prefetch(|| encoder.open_live(), rest, options, &mut body),
    });
    LoopOutcome {
        ended: ended.map_err(TrainError::from).and_then(|ended| ended),
        probe: callbacks.probe,
        ended_by: callbacks.ended_by,
        seconds: began.elapsed().as_secs_f64(),
        peak_memory_bytes: memory::read_on(*device).filter(|_| knows_peak).map(|memory| memory.peak),
    }
}

/// Writes the averaged, best or last weights, with their model card.
fn write_results(
    inputs: &RunInputs<'_>,
    prepared: &Prepared<'_>,
    dir: &RunDir,
    logger: &Logger<'_>,
    probe: Option<&Probe>,
) -> Result<(), TrainError> {
    let RunInputs { plan, model, source, ranks, .. } = inputs;
    let keeps_best = plan.logging.on_alarm == Rule::KeepBest;
    if let Some(ema) = prepared.state.ema.as_ref().filter(|_| !keeps_best) {
        ema.copy_to(&prepared.trainable);
    }
    if ranks.is_first() {
        if keeps_best {
            restore_best(dir, logger, &prepared.trainable)?;
        }
        inputs.save(&prepared.networks, dir.path())?;
        let facts = CardFacts {
            family: model.family(),
            fingerprint: source.fingerprint(),
            n_held_out: inputs.split.held_out.len(),
            origin: inputs.origin.as_deref(),
            probe,
        };
        write_card(&result_paths(dir.path(), plan), &card(plan, &facts))?;
    }
    ranks.barrier()
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

/// Makes the cache of a plan, or one rank's part of it, and returns its folder. `on_event` is called with [`Event::Encode`].
///
/// # Errors
/// [`TrainError`] if the model or the data cannot be read, or the folder holds the cache of something else.
pub fn cache(
    plan: &Plan,
    source: &dyn PairSource,
    rank: Rank,
    device: Device,
    on_event: &mut OnEvent<'_>,
) -> Result<CacheFolder, TrainError> {
    let model = Model::from_sources(&sources(&plan.model))?;
    let (plan, _) = with_network_weights(plan.clone(), &model)?;
    let encoder = Encoder::new(&model, source, EncodeSettings::of(&plan, device));
    Ok(encoder.cache(rank, on_event)?.folder)
}

fn device_in_words(device: Device, plan: &Plan) -> String {
    let precision = plan.train.mixed_precision;
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
