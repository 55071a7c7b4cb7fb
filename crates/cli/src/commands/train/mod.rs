//! `tastemaker train`: from a recipe and flags to an aligned model.

mod flags;
mod published;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tastemaker_data::PairSource;
use tastemaker_data::split::split;
use tastemaker_hub::HubError;
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_run::health::Severity;
use tastemaker_run::{Adapter, Event, LoraPlan, Plan, Recipe, Surroundings, resolve};
use tastemaker_store::StoreError;
use tastemaker_train::adapter::with_network_weights;
use tastemaker_train::checkpoint::{self, Resume};
use tastemaker_train::distributed::ProcessGroup;
use tastemaker_train::session::Options;
use tastemaker_train::{TrainError, estimate, session};
use tch::Device;

use crate::allocator;
use crate::commands::DeviceFlag;
use crate::exit::{Interrupted, UsageError};
use crate::hub::{locate, pair_caches};
use crate::models::{self, Found};
use crate::pairs;
use crate::progress::{Progress, duration, mebibytes};
use crate::ranks;
use crate::signals::Signals;
pub use flags::Flags;

/// Aligns a model with pairs of images
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The run, in TOML; flags override it
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// Checkpoint to resume from: latest, a checkpoint-N of the output folder, or the path of one; latest starts afresh where
    /// there is none
    #[arg(long = "resume_from_checkpoint", value_name = "latest|DIR", value_parser = resume)]
    resume: Option<Resume>,
    /// Print what would be done, and stop
    #[arg(long = "dry-run")]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub fn train(args: TrainArgs) -> Result<()> {
    let recipe = args.recipe.as_deref().map_or_else(|| Ok(Recipe::default()), Recipe::read)?;
    let plan = planned(recipe, args.flags, args.dry_run)?;
    if args.dry_run { show(plan, args.device) } else { run(plan, args.resume.as_ref(), args.device) }
}

/// The plan of a recipe and flags, its parts found, what is odd about it said.
pub fn planned(recipe: Recipe, flags: Flags, only_shown: bool) -> Result<Plan> {
    let (overrides, notices) = flags.overrides(recipe.method.name.as_deref())?;
    let mut plan = resolve(recipe, overrides)?;
    plan.cache_root = pair_caches();
    find_parts(&mut plan, only_shown)?;
    for notice in notices {
        eprintln!("note: {notice}");
    }
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(plan)
}

/// Puts the folder in place of each name, so that the plan says which commit was trained. A plan that is only shown may name
/// models that are not there yet.
fn find_parts(plan: &mut Plan, only_shown: bool) -> Result<()> {
    let model = &mut plan.model;
    find_model(&mut model.pretrained_model_name_or_path, model.revision.as_deref(), only_shown)?;
    let parts = [&mut model.pretrained_vae_model_name_or_path, &mut model.unet_init, &mut model.model_config];
    parts.into_iter().flatten().try_for_each(|part| find(part, None, only_shown))?;
    find_weights(&mut plan.adapter, only_shown)?;
    let pairs = &mut plan.data.train_data_dir;
    let found = pairs::find(pairs);
    put(pairs, found, only_shown)
}

fn find(name: &mut String, revision: Option<&str>, only_shown: bool) -> Result<()> {
    let found = locate(name, revision).and_then(|folder| utf8(folder));
    put(name, found, only_shown)
}

/// The model that is named, which can be a training's output folder.
fn find_model(name: &mut String, revision: Option<&str>, only_shown: bool) -> Result<()> {
    if !Path::new(name.as_str()).join("plan.json").is_file() {
        return find(name, revision, only_shown);
    }
    let found = match models::find(name, revision)? {
        Found::Model(path) => utf8(path),
        Found::Lora(path, _) => Err(UsageError(format!(
            "{name} is a LoRA and no whole model: name the model it was trained on, and --network_weights {} to go on from it",
            path.display()
        ))
        .into()),
        Found::UNet(path, _) => Err(UsageError(format!(
            "{name} is a UNet and no whole model: name the model it was trained on, and --unet_init {}",
            path.display()
        ))
        .into()),
        Found::Folder(path) => utf8(path),
    };
    put(name, found, only_shown)
}

/// The LoRA that training starts from, which can be named by its folder, its run, or on the Hub.
fn find_weights(adapter: &mut Adapter, only_shown: bool) -> Result<()> {
    let weights = match adapter {
        Adapter::Continued { network_weights, .. } => network_weights,
        Adapter::Lora(LoraPlan { network_weights: Some(network_weights), .. }) => network_weights,
        _ => return Ok(()),
    };
    if let Some(name) = weights.to_str().filter(|_| !weights.is_file()) {
        match models::find_lora(name) {
            Ok(found) => *weights = found,
            Err(_) if only_shown => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn utf8(folder: PathBuf) -> Result<String> {
    folder.into_os_string().into_string().map_err(|folder| {
        UsageError(format!("the folder {} is not UTF-8; choose another cache", folder.display())).into()
    })
}

fn put(name: &mut String, found: Result<String>, only_shown: bool) -> Result<()> {
    match found {
        Ok(place) if place != *name => {
            eprintln!("note: {name} is {place}");
            *name = place;
        }
        Ok(_) => {}
        Err(error) if only_shown && matches!(error.downcast_ref(), Some(HubError::NotCached { .. })) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Prints the plan, with the size of the data if it is there.
fn show(mut plan: Plan, device: DeviceFlag) -> Result<()> {
    plan.n_processes = ranks::world_size()?;
    let sources = session::sources(&plan.model);
    let parts = [Some(&sources.model), sources.config.as_ref(), sources.vae.as_ref(), sources.unet.as_ref()];
    let absent: Vec<&PathBuf> = parts.into_iter().flatten().filter(|path| !path.exists()).collect();
    for path in &absent {
        eprintln!("note: the model {} does not exist yet", path.display());
    }
    let model = if absent.is_empty() { Some(Model::from_sources(&sources)?) } else { None };
    if let Some(model) = &model {
        plan = with_network_weights(plan, model)?.0;
    }
    let mut n_held_out = None;
    let plan = match pairs::of_plan(&plan) {
        Ok(source) => {
            let (plan, split) = with_data(plan, &source);
            n_held_out = Some(split.held_out.len());
            plan
        }
        Err(error) if is_absence(&error, &plan.data.train_data_dir) => {
            let pairs = &plan.data.train_data_dir;
            eprintln!("note: the pairs {pairs} do not exist yet, so their number is not known");
            plan
        }
        Err(error) => return Err(error),
    };
    let plan = match &model {
        Some(model) => {
            let on_host = device.open().is_ok_and(|device| device == Device::Cpu);
            say_idle(&plan, model, n_held_out.unwrap_or(1), on_host);
            let memory = estimate::memory(&plan, model)?;
            plan.with_memory(memory)
        }
        None => plan,
    };
    print!("{plan}");
    let there: Vec<String> = checkpoint::names(&plan.output_dir);
    if !there.is_empty() {
        let (folder, there) = (plan.output_dir.display(), there.join(", "));
        println!("{folder} holds {there}; --resume_from_checkpoint takes latest or one of them");
    }
    Ok(())
}

/// Says which settings change nothing here.
fn say_idle(plan: &Plan, model: &Model, n_held_out: usize, on_host: bool) {
    let place = Path::new(&plan.model.pretrained_model_name_or_path);
    let names = place.components().map(|part| part.as_os_str().to_string_lossy());
    let around = Surroundings {
        on_host,
        has_time_ids: model.family() == Family::StableDiffusionXl,
        is_file: place.is_file(),
        is_fetched: names.into_iter().any(|name| name.starts_with("models--")),
        n_held_out,
    };
    for warning in plan.idle_in(&around) {
        eprintln!("warning: {warning}");
    }
}

/// Whether there are no pairs at that place or of that name.
fn is_absence(error: &anyhow::Error, pairs: &str) -> bool {
    let is_missing =
        |error: &StoreError| matches!(error, StoreError::Missing { path, .. } if path == Path::new(pairs));
    match error.downcast_ref() {
        Some(HubError::NotCached { .. }) => true,
        Some(HubError::Store(error)) => is_missing(error),
        _ => error.downcast_ref().is_some_and(is_missing),
    }
}

fn resume(text: &str) -> Result<Resume, std::convert::Infallible> {
    Ok(if text == "latest" { Resume::Latest } else { Resume::From(text.into()) })
}

fn run(plan: Plan, resume: Option<&Resume>, device: DeviceFlag) -> Result<()> {
    let device = device.open()?;
    let group = ranks::join()?;
    let mut plan = plan;
    plan.n_processes = group.as_ref().map_or(1, |group| group.world_size() as u32);
    let source = pairs::of_plan(&plan)?;
    pairs::report_skipped(&source);
    let model = Model::from_sources(&session::sources(&plan.model))?;
    allocator::suit(&model)?;
    let (plan, split) = with_data(plan, &source);
    let is_first = ProcessGroup::new(group.as_ref()).is_first();
    if is_first {
        say_idle(&plan, &model, split.held_out.len(), device == Device::Cpu);
    }
    drop(model);
    if is_first && resume == Some(&Resume::Latest) && checkpoint::names(&plan.output_dir).is_empty() {
        eprintln!("note: {} holds no checkpoint; starting from the first step", plan.output_dir.display());
    }
    let mut progress = Progress::new(plan.train.max_train_steps);
    let signals = Signals::listen()?;
    let ranks = ProcessGroup::new(group.as_ref());
    let options = Options { resume, stop: &|| signals.came(), ranks, device };
    let trained = session::train(&plan, &source, &split, options, &mut |event| {
        if is_first {
            progress.on_event(event);
        }
        let is_early =
            matches!(event, Event::Waiting { .. } | Event::Read(_) | Event::Encode(_) | Event::Reference(_));
        match signals.came() {
            signal @ Some(_) if is_early => Err(TrainError::Stopped { step: None, signal }),
            _ => Ok(()),
        }
    });
    progress.end();
    let trained = trained.map_err(|error| match error {
        TrainError::Stopped { signal: Some(signal), .. } => Interrupted { signal, source: error }.into(),
        _ => anyhow::Error::from(error),
    })?;
    if !is_first {
        return Ok(());
    }
    let memory = trained.peak_memory_bytes.map(|bytes| format!(", at most {} of memory", mebibytes(bytes)));
    let results: Vec<String> = trained.results.iter().map(|path| path.display().to_string()).collect();
    println!(
        "wrote {}: {} steps in {}{}",
        results.join(", "),
        trained.steps,
        duration(trained.seconds),
        memory.unwrap_or_default()
    );
    if let Some(worst) = trained.alarms.first() {
        let others = match trained.alarms.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} other {})", if n == 1 { "alarm" } else { "alarms" }),
        };
        let ruined = match worst.severity() {
            Severity::Critical => "the result is likely ruined: ",
            Severity::Warning => "look at the result: ",
        };
        println!("{ruined}{worst}{others}");
    }
    Ok(())
}

/// The split that the plan's seed makes, and the plan knowing its size.
fn with_data(plan: Plan, source: &dyn PairSource) -> (Plan, tastemaker_data::split::Split) {
    let mut split = split(source, plan.data.held_out_fraction, plan.train.seed);
    split.train.truncate(plan.data.max_train_samples.unwrap_or(usize::MAX));
    (plan.with_data(split.train.len() as u64), split)
}
