//! A whole run, from a plan to its result on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tastemaker_store::version;

use tastemaker_data::PairSource;
use tastemaker_data::cache::CacheFolder;
use tastemaker_data::split::Split;
use tastemaker_models::pipeline::Model;
use tastemaker_run::health::{Alarm, Limits, Rule, outside_published};
use tastemaker_run::{Event, EventLog, Finish, Outcome, Plan, RunDir, RunError, Start};
use tastemaker_store::atomic;
use tastemaker_torch::error::guard;
use tastemaker_torch::memory::{self, Memory};
use tastemaker_torch::nccl::Library;
use tastemaker_torch::versions;
use tch::Device;

use crate::TrainError;
use crate::adapter::with_network_weights;
use crate::checkpoint::checkpointing::{Checkpointing, restore_best};
use crate::checkpoint::{self, Resume};
use crate::data::cache::{Encoder, OnEvent, with_cache_dtype};
use crate::data::{EncodeSettings, Feed, Rank, prefetch};
use crate::distributed::{GradientExchange, ProcessGroup};
use crate::estimate;
pub use crate::fitting::{check_levels, check_pairs};
use crate::logger::{Log, Logger, open_log};
use crate::optimizer::Exchange;
pub use crate::output::kohya_name;
use crate::output::model_card::{CardFacts, card};
use crate::output::{RunFacts, result_paths};
use crate::reference::Reference;
use crate::setup::{Prepared, RunInputs, prepare};
pub use crate::setup::{sources, with_latents};
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
    /// Most memory that the device's allocator took of it in that time; none on the CPU.
    pub peak_reserved_bytes: Option<u64>,
    /// Model folders and files, or the adapter file; see [`result_paths`].
    pub results: Vec<PathBuf>,
    /// What was raised about the state that is the result, the worst first.
    pub alarms: Vec<Alarm>,
}

/// How a plan is carried out, beside what it says.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// What to resume from.
    pub resume: Option<&'a Resume>,
    /// Asked after every step whether to save and stop: the signal that wants it.
    pub stop: &'a dyn Fn() -> Option<i32>,
    /// The processes that train together; they share a disk.
    pub ranks: ProcessGroup<'a>,
    /// What stands in for NCCL, on any device; without it, processes on devices use the one of libtorch's part for CUDA.
    pub nccl: Option<&'a Library>,
    /// Where networks live.
    pub device: Device,
    /// Whether files of others that are in the output folder may stay there; else it must be new, empty or a run's.
    pub is_place_checked: bool,
    /// Removes what an earlier run left in the output folder; called when nothing is left that could be refused, just before the first
    /// step. Without it such a run is an error if it left checkpoints.
    pub replace: Option<&'a dyn Fn() -> Result<(), TrainError>>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            resume: None,
            stop: &|| None,
            ranks: ProcessGroup::default(),
            nccl: None,
            device: Device::Cpu,
            is_place_checked: false,
            replace: None,
        }
    }
}

/// Carries out a plan: opens, checks, encodes, trains, writes.
///
/// `split` says which positions of `source` are trained on. The folder `plan.output_dir` gets `plan.json`,
/// `events.jsonl`, checkpoints and the result; a run of the same plan that is there already is started again and
/// replaced, unless it left checkpoints; with `options.replace` any run is, when the new one is about to take its first step. Whatever can be found wrong is found before the first step: the model's files, the
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
    let checkpoint = match (options.resume, options.replace) {
        (None, Some(_)) => None,
        (resume, _) => resume_from(&plan.output_dir, resume)?,
    };
    let was_there = plan.output_dir.join("plan.json").exists();
    let replace = options.replace.filter(|_| was_there && options.resume.is_none());
    let identity = inputs.identity()?;
    inputs.agree(&identity, checkpoint.as_deref())?;
    // All ranks list checkpoints before the first of them writes anything.
    ranks.barrier()?;
    let mut _lock = None;
    let create = || -> Result<EventLog, TrainError> {
        let dir = match options.is_place_checked {
            true => RunDir::create_among_others(&plan.output_dir, plan)?,
            false => RunDir::create(&plan.output_dir, plan)?,
        };
        open_log(&dir, checkpoint.is_some())
    };
    let dir = RunDir::at(&plan.output_dir);
    let log = match (ranks.is_first(), replace) {
        (false, _) => Log::Nowhere,
        (true, replace) => {
            _lock = Some(RunDir::lock(&plan.output_dir)?);
            if replace.is_some() { Log::Later(Vec::new()) } else { Log::Open(create()?) }
        }
    };
    let mut logger =
        Logger::new(log, Limits::of(&inputs.objective, inputs.schedule.as_flow().is_some()), on_event);
    let doing = "opening the model and encoding the pairs";
    let opened = guard(doing, "a smaller --resolution needs less", || {
        prepare(&inputs, identity, lora, checkpoint.as_deref(), &mut logger)
    });
    let mut prepared = match opened.map_err(TrainError::from).and_then(|prepared| prepared) {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(logger);
            if !was_there && ranks.is_first() {
                abandon(&dir);
            }
            return Err(error);
        }
    };
    let (shards, device) = (plan.optimizer.shard_optimizer, inputs.device);
    let exchange = GradientExchange::new(ranks, &prepared.trainable, shards, device, options.nccl)?;
    if let Some(replace) = replace.filter(|_| ranks.is_first()) {
        replace()?;
        logger.open(create()?)?;
    }
    start(&inputs, &prepared, &dir, &mut logger)?;
    // Nothing takes hours any more.
    ranks.limit_waits(true);
    let run = run_loop(&inputs, &mut prepared, &dir, &mut logger, exchange, options.stop);
    let mut alarms = Vec::new();
    let ended = run.ended.and_then(|ended| {
        if ended == Ended::Completed {
            alarms = write_results(&inputs, &prepared, &dir, &logger)?;
        }
        Ok(ended)
    });
    let (step, seconds) = (prepared.state.step, run.seconds);
    let peak_memory_bytes = run.memory.map(|memory| memory.peak);
    let peak_reserved_bytes = run.memory.and_then(|memory| memory.peak_reserved);
    let finish =
        |outcome| Event::Finish(Finish { step, outcome, seconds, peak_memory_bytes, peak_reserved_bytes });
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
                None => Err(TrainError::Stopped { step: Some(step), signal: run.signal }),
            }
        }
        Ok(Ended::Completed) => {
            logger.record(&finish(Outcome::Completed))?;
            let results = result_paths(dir.path(), plan, inputs.model.family());
            Ok(Trained { steps: step, seconds, peak_memory_bytes, peak_reserved_bytes, results, alarms })
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
        version: version().to_owned(),
        libtorch: versions::libtorch(),
        method: plan.method.name.clone(),
        device: device_in_words(*device, plan),
        n_pairs: prepared.order.train.len() as u64,
        n_held_out: split.held_out.len() as u64,
        n_ties: source.n_ties() as u64,
        n_skipped: (source.skipped().len() - source.n_ties()) as u64 + prepared.n_unreadable,
        step: prepared.state.step,
        betas: plan
            .betas()
            .into_iter()
            .map(|(convention, beta)| (convention.name().to_owned(), beta))
            .collect(),
        peak_memory_bytes: memory::read_on(*device).map(|memory| memory.peak),
    });
    logger.start(dir, plan, &start)?;
    if prepared.state.step > 0 {
        return Ok(());
    }
    logger.warn(&odd_settings(inputs, prepared))
}

/// What of the plan is far from everything published.
fn odd_settings(inputs: &RunInputs<'_>, prepared: &Prepared<'_>) -> Vec<Alarm> {
    let parameters = prepared.networks.policy.parameters.values();
    let n_weights = parameters.map(|tensor| tensor.numel() as u64).sum();
    outside_published(&inputs.plan, n_weights, inputs.schedule.as_flow().is_some())
}

/// What came of the loop.
struct LoopOutcome {
    ended: Result<Ended, TrainError>,
    /// The alarm that ended it.
    ended_by: Option<String>,
    /// The signal that ended it.
    signal: Option<i32>,
    seconds: f64,
    /// What it held, where that is known.
    memory: Option<Memory>,
}

/// Runs the steps that are not done yet, on batches that are prefetched.
fn run_loop(
    inputs: &RunInputs<'_>,
    prepared: &mut Prepared<'_>,
    dir: &RunDir,
    logger: &mut Logger<'_>,
    exchange: GradientExchange<'_>,
    stop: &dyn Fn() -> Option<i32>,
) -> LoopOutcome {
    let RunInputs { plan, source, ranks, device, .. } = inputs;
    let ranks = *ranks;
    let Prepared {
        networks, trainable, encoder, cached, order, precomputed, identity, images, state, ..
    } = prepared;
    let (networks, trainable, order, images) = (&*networks, trainable.as_slice(), &*order, images.as_ref());
    let n_pairs = order.train.len() as u64;
    let reference = match &state.reference {
        Some(ema) => {
            let exchange = Exchange::of(ema, trainable);
            Reference::Following { policy: &networks.policy.network, exchange }
        }
        None => networks.reference(),
    };
    let held_out: Vec<u64> = order.held_out.iter().map(|&position| source.id(position).0).collect();
    let train_loop = TrainLoop {
        plan,
        engine: inputs.engine(&networks.policy.network, &reference, networks.text.as_ref()),
        trainable,
        order,
        held_out: &held_out,
        precomputed: precomputed.as_ref(),
        exchange,
    };
    let mut callbacks = Checkpointing {
        logger,
        dir,
        plan,
        identity,
        trainable,
        save_adapter: &|steps, folder| inputs.save(networks, &RunFacts { steps, n_pairs }, folder),
        ranks,
        images,
        networks,
        stop,
        ended_by: None,
        signal: None,
        pending: None,
    };
    memory::give_back();
    let knows_peak = memory::reset_peak_on(*device);
    let began = Instant::now();
    let rest = order.clone().over(state.step..plan.train.max_train_steps).of_rank(ranks.rank());
    let options = inputs.batch_options(order);
    let drawing = train_loop.engine.drawing();
    let mut body = |feed: &mut Feed<'_>| {
        callbacks.missing_images(state)?;
        let ended = train_loop.run(state, feed, &mut callbacks);
        let settled = callbacks.settle();
        ended.and_then(|ended| settled.map(|()| ended))
    };
    let ended = guard(&doing(plan), &relief(inputs), || match cached.take() {
        Some(cached) => prefetch(move || Ok(cached), rest, options, drawing, &mut body),
        None => prefetch(|| encoder.open_live(), rest, options, drawing, &mut body),
    });
    let ended = ended.map_err(TrainError::from).and_then(|ended| ended);
    let ended = ended.and_then(|ended| train_loop.exchange.leave().map(|()| ended));
    LoopOutcome {
        ended,
        ended_by: callbacks.ended_by,
        signal: callbacks.signal,
        seconds: began.elapsed().as_secs_f64(),
        memory: memory::read_on(*device).filter(|_| knows_peak),
    }
}

/// Writes the averaged, best or last weights, with their model card, and returns what was raised about them.
fn write_results(
    inputs: &RunInputs<'_>,
    prepared: &Prepared<'_>,
    dir: &RunDir,
    logger: &Logger<'_>,
) -> Result<Vec<Alarm>, TrainError> {
    let RunInputs { plan, model, source, ranks, .. } = inputs;
    let Prepared { state, trainable, .. } = prepared;
    if let Some(ema) = &state.ema {
        ema.copy_to(trainable);
    }
    let mut alarms = odd_settings(inputs, prepared);
    if ranks.is_first() {
        let best = match plan.logging.on_alarm {
            Rule::KeepBest => restore_best(dir, logger, trainable)?,
            Rule::Warn | Rule::Stop => None,
        };
        let steps = best.unwrap_or(state.step);
        alarms = [logger.watch.raised_until(steps), alarms].concat();
        let run = RunFacts { steps, n_pairs: prepared.order.train.len() as u64 };
        inputs.save(&prepared.networks, &run, dir.path())?;
        let facts = CardFacts {
            family: model.family(),
            fingerprint: source.fingerprint(),
            n_held_out: inputs.split.held_out.len(),
            origin: inputs.origin.as_deref(),
            probe: logger.watch.probe_of(steps),
            alarms: &alarms,
            run,
        };
        write_card(&result_paths(dir.path(), plan, model.family()), &card(plan, &facts))?;
    }
    ranks.barrier()?;
    Ok(alarms)
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
    let plan = with_cache_dtype(plan, &model, source)?;
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

/// What would make a run fit, for when memory has ended.
fn relief(inputs: &RunInputs<'_>) -> String {
    let are_single = inputs.source.label(0).is_some();
    let less = estimate::what_takes_less(&inputs.plan, &inputs.model, are_single, Some(inputs.device));
    let less = less.unwrap_or_default();
    let join = if less.is_empty() { "" } else { ", or " };
    format!("{less}{join}a smaller --resolution needs less")
}

/// What libtorch is busy with if it stops.
fn doing(plan: &Plan) -> String {
    let (resolution, batch) = (plan.data.resolution, plan.train.train_batch_size);
    format!("training on {batch} pairs of {resolution} x {resolution} at once")
}
