//! `tastemaker train`: from a recipe and flags to an aligned model.

pub mod defaults;
mod flags;
mod place;
pub mod published;
pub(crate) mod saying;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tastemaker_data::PairSource;
use tastemaker_data::split::{split, split_drawn};
use tastemaker_hub::HubError;
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_run::health::Severity;
use tastemaker_run::{
    Adapter, Event, HeldOutChoice, LoraPlan, ModelPlan, Plan, Recipe, Warning, resolve_over,
};
use tastemaker_store::StoreError;
use tastemaker_torch::distributed::Group;
use tastemaker_train::checkpoint::{self, Resume};
use tastemaker_train::distributed::ProcessGroup;
use tastemaker_train::session::Options;
use tastemaker_train::{TrainError, estimate, session};
use tch::Device;

use crate::allocator;
use crate::commands::DeviceFlag;
use crate::commands::watch::Watched;
use crate::exit::{Interrupted, UsageError};
use crate::hub::{check_cache, home_folder, locate, pair_caches};
use crate::models::{self, Found};
use crate::next;
use crate::pairs;
use crate::place::{OverwriteFlag, rename_images};
use crate::progress::{Progress, counted, duration, mebibytes};
use crate::ranks;
use crate::signals::Signals;
pub use flags::Flags;

/// Aligns a model with pairs of images
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The run, in TOML; flags override it
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// Checkpoint to resume from: latest, a checkpoint-N of the output folder, or its path; latest starts a new run if
    /// there is none
    #[arg(long = "resume_from_checkpoint", value_name = "latest|DIR", value_parser = resume)]
    resume: Option<Resume>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Print the resolved settings, memory and batch, and exit
    #[arg(long = "dry-run")]
    dry_run: bool,
    /// Serve a page beside the run that shows how it goes, as `tastemaker watch` does
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    device: DeviceFlag,
    /// What the run is.
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs the command.
pub fn train(args: TrainArgs) -> Result<()> {
    let Planned { plan, resumes } =
        planned(args.recipe.as_deref(), args.flags, Recipe::default(), args.dry_run, args.resume.is_some())?;
    let resume = args.resume.or_else(|| resumes.then_some(Resume::Latest));
    match args.dry_run {
        true => show(plan, args.device),
        false => run(plan, resume.as_ref(), args.overwrite, args.watch, args.device),
    }
}

/// A plan, and what a pasted command does besides.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Whether the script that it is of resumes by itself.
    pub resumes: bool,
}

/// The plan of a recipe and flags, with `fallback` where neither says anything, its parts found, what is odd about it said. In
/// place of the recipe can stand the name of the training script that the command was pasted from. A run that is resumed keeps its
/// own resolution and split.
pub fn planned(
    first: Option<&Path>,
    flags: Flags,
    fallback: Recipe,
    only_shown: bool,
    is_resumed: bool,
) -> Result<Planned> {
    let script = first.filter(|path| path.extension().is_some_and(|ending| ending == "py"));
    let script = script.map(published::script_named).transpose()?;
    let recipe = first.filter(|_| script.is_none()).map(read_recipe).transpose()?;
    if let (Some(path), Some(differs)) = (first, recipe.as_ref().and_then(|recipe| recipe.differs.as_deref()))
    {
        eprintln!("note: {} differs from its source: {differs}", path.display());
    }
    let said = flags.meant(recipe.as_ref(), script, is_xl)?;
    for notice in &said.notices {
        eprintln!("note: {notice}");
    }
    let resumes = said.script.is_some_and(|script| script.resumes);
    let recipe = recipe.unwrap_or_default();
    let places = [&said.overrides.output_dir, &recipe.output_dir, &said.defaults.output_dir];
    let place = places.into_iter().flatten().next().filter(|_| is_resumed || resumes);
    let earlier = defaults::earlier(place.map(PathBuf::as_path));
    let kept = earlier.as_ref().map(defaults::of_earlier).unwrap_or_default();
    let of_model = defaults::of_model(&said.overrides, &recipe);
    let defaults = said.defaults.over(kept).over(of_model).over(fallback);
    let resolved = resolve_over(recipe.clone(), said.overrides, defaults);
    let mut plan = resolved.inspect_err(saying::list_methods)?;
    saying::warn_of_override(&recipe, &plan);
    plan.cache_root = pair_caches();
    find_parts(&mut plan, only_shown)?;
    let (old, others): (Vec<&Warning>, Vec<&Warning>) =
        plan.warnings.iter().partition(|warning| matches!(warning, Warning::Renamed { .. }));
    let (flags, keys): (Vec<String>, Vec<String>) =
        old.iter().map(ToString::to_string).partition(|names| names.starts_with("--"));
    let place = first.map_or_else(String::new, |path| path.display().to_string());
    note_old_names(&place, &keys);
    note_old_names("flags", &flags);
    for warning in others {
        eprintln!("warning: {warning}");
    }
    Ok(Planned { plan, resumes })
}

/// Says which names of earlier versions stand somewhere, each with that of now.
pub fn note_old_names(place: &str, names: &[String]) {
    if !names.is_empty() {
        eprintln!("note: old names in {place}: {}", names.join(", "));
    }
}

/// Reads a recipe.
///
/// # Errors
/// [`UsageError`] for a folder; those of [`Recipe::read`].
pub fn read_recipe(path: &Path) -> Result<Recipe> {
    if path.is_dir() {
        return Err(UsageError(format!(
            "{} is a folder: a recipe file is wanted here; pairs go to --train_data_dir",
            path.display()
        ))
        .into());
    }
    let recipe = Recipe::read(path)?;
    Ok(match home_folder() {
        Some(home) => recipe.at_home(&home),
        None => recipe,
    })
}

/// Whether a model is an SDXL: as it says itself where it is there, else as its name says.
fn is_xl(name: &str, revision: Option<&str>) -> bool {
    models::whole(name, revision).map_or_else(
        || name.to_lowercase().contains("xl"),
        |model| matches!(model.family(), Family::StableDiffusionXl),
    )
}

/// Puts the folder in place of each name, so that the plan says which commit was trained. A plan that is only shown may name
/// models that are not there yet.
fn find_parts(plan: &mut Plan, only_shown: bool) -> Result<()> {
    let model = &mut plan.model;
    find_model(model, only_shown)?;
    let parts = [&mut model.pretrained_vae_model_name_or_path, &mut model.unet_init, &mut model.model_config];
    parts.into_iter().flatten().try_for_each(|part| find(part, None, only_shown))?;
    find_weights(&mut plan.adapter, only_shown)?;
    let pairs = &mut plan.data.train_data_dir;
    let found = pairs::find(pairs);
    put(pairs, found, only_shown)
}

fn find(name: &mut String, revision: Option<&str>, only_shown: bool) -> Result<()> {
    let found = locate(name, revision).and_then(utf8);
    put(name, found, only_shown)
}

/// The model that is named, which can be a training's output folder.
fn find_model(model: &mut ModelPlan, only_shown: bool) -> Result<()> {
    let (name, revision) = (&mut model.pretrained_model_name_or_path, model.revision.as_deref());
    if !Path::new(name.as_str()).join("plan.json").is_file() {
        return find(name, revision, only_shown);
    }
    let found = match models::find(name, revision)? {
        Found::Model(path) => {
            let config = models::sources(path.clone())?.config.map(utf8).transpose()?;
            model.model_config = model.model_config.take().or(config);
            utf8(path)
        }
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
        plan = saying::with_latents(saying::with_lora(plan, model)?, model)?;
    }
    let (mut n_held_out, mut are_single) = (None, false);
    let plan = match pairs::of_plan(&plan) {
        Ok(source) => {
            are_single = source.label(0).is_some();
            saying::say_cache_dtype(&plan, source.len());
            let (plan, split) = with_data(plan, &source);
            session::check_pairs(&plan, &source, &split)?;
            n_held_out = Some(split.held_out.len());
            plan.with_cache_of(source.len() as u64)
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
            let mut plan = plan;
            // A plan can be made where the device that it is for is not.
            let device = device.open().ok();
            saying::say_idle(&plan, model, n_held_out.unwrap_or(1), device == Some(Device::Cpu));
            session::check_levels(&plan, model)?;
            plan.facts = saying::facts(model, device)?;
            saying::warn_of_odd(&plan, model)?;
            saying::warn_of_resolution(&plan, model)?;
            let memory = estimate::memory(&plan, model, are_single, device)?;
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
    next::again(&["--dry-run", "--dry_run", "--dry-run=true"], &[]);
    Ok(())
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

fn run(
    plan: Plan,
    resume: Option<&Resume>,
    overwrite: OverwriteFlag,
    watch: bool,
    device: DeviceFlag,
) -> Result<()> {
    // A mistake is found before others are waited for; a device that is not there, when they are here to hear of it.
    ranks::local_rank()?;
    let signals = Signals::default();
    let Some(group) = ranks::join(&signals)? else {
        return run_among(None, &signals, plan, resume, overwrite, watch, device);
    };
    // Alone, a process has nobody to say it to before the run begins.
    signals.begin()?;
    let done = run_among(Some(&group), &signals, plan, resume, overwrite, watch, device);
    done.map_err(|error| ranks::part(&group, &signals, error))
}

/// The run as one of these processes.
fn run_among(
    group: Option<&Group>,
    signals: &Signals,
    plan: Plan,
    resume: Option<&Resume>,
    overwrite: OverwriteFlag,
    watch: bool,
    device: DeviceFlag,
) -> Result<()> {
    let device = device.open()?;
    ProcessGroup::new(group).check_devices(device)?;
    let output_dir = plan.output_dir.clone();
    let place = place::of(&output_dir);
    let mut claimed = None;
    let is_first = ProcessGroup::new(group).is_first();
    if is_first {
        if let (Some(root), None, false) = (&plan.cache_root, &plan.data.cache_to, plan.data.no_cache) {
            check_cache(root, "--cache_to")?;
        }
        claimed = Some(place::claim(&place, &output_dir, resume.is_some(), overwrite)?);
        if overwrite.overwrite && resume.is_none() {
            place.spare(&place::inputs(&plan))?;
        }
    }
    let mut plan = plan;
    plan.n_processes = group.map_or(1, |group| group.world_size() as u32);
    let source = pairs::of_plan(&plan)?;
    pairs::report_skipped(&source);
    let model = Model::from_sources(&session::sources(&plan.model))?;
    allocator::suit(&model)?;
    if is_first {
        saying::say_cache_dtype(&plan, source.len());
    }
    let (mut plan, split) = with_data(plan, &source);
    session::check_pairs(&plan, &source, &split)?;
    if is_first {
        plan = saying::with_latents(saying::with_lora(plan, &model)?, &model)?;
        saying::say_idle(&plan, &model, split.held_out.len(), device == Device::Cpu);
        saying::warn_of_resolution(&plan, &model)?;
        pairs::report_cut(&source, &model)?;
    }
    let family = model.family();
    drop(model);
    if is_first && resume == Some(&Resume::Latest) && checkpoint::names(&plan.output_dir).is_empty() {
        eprintln!("note: {} holds no checkpoint; starting from the first step", plan.output_dir.display());
    }
    if is_first && resume.is_some() {
        rename_images(&output_dir)?;
    }
    // The run takes its folder itself.
    drop(claimed);
    // All ranks look for checkpoints after that.
    ProcessGroup::new(group).barrier()?;
    let _page = (is_first && watch).then(|| Watched::beside(&output_dir)).transpose()?;
    let mut progress = Progress::new(plan.train.max_train_steps);
    if group.is_none() {
        signals.begin()?;
    }
    let ranks = ProcessGroup::new(group);
    let replace = || Ok(place.clear()?);
    // What is there was judged above.
    let options = Options {
        resume,
        stop: &|| signals.came(),
        ranks,
        device,
        is_place_checked: true,
        replace: resume.is_none().then_some(&replace),
        ..Options::default()
    };
    let trained = session::train(&plan, &source, &split, options, &mut |event| {
        if is_first {
            progress.on_event(event);
        }
        let is_early =
            matches!(event, Event::Waiting { .. } | Event::Read(_) | Event::Encode(_) | Event::Reference(_));
        match signals.came() {
            signal @ Some(_) if is_early => Err(TrainError::Stopped { step: None, signal }),
            _ if is_early => Ok(group.map_or(Ok(()), Group::check_all)?),
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
    let reserved = trained.peak_reserved_bytes.map(|bytes| format!(" ({} reserved)", mebibytes(bytes)));
    let memory = trained
        .peak_memory_bytes
        .map(|bytes| format!(", peak memory {}{}", mebibytes(bytes), reserved.unwrap_or_default()));
    let results = saying::results(&plan, family, &trained.results);
    println!(
        "wrote {results}: {} in {}{}",
        counted(trained.steps, "step"),
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
        if worst.severity() == Severity::Critical {
            let lower = format!("{:e}", plan.optimizer.learning_rate / 10.0);
            next::again(&["--overwrite"], &["--overwrite", "--learning_rate", &lower]);
            return Ok(());
        }
    }
    let base = plan.model.pretrained_model_name_or_path.as_str();
    if let Some(result) = trained.results.first().map(|path| next::word(path)) {
        let model: &[&str] = match &plan.adapter {
            Adapter::Full {} if Path::new(&result).join("model_index.json").is_file() => {
                &["--model", &result]
            }
            Adapter::Full {} => &["--model", base, "--unet_init", &result],
            Adapter::Lora(_) | Adapter::Continued { .. } => &["--model", base, "--lora", &result],
        };
        let images = format!("{}-samples", plan.output_dir.display());
        next::say(&[&["tastemaker", "sample"], model, &["--prompt", "a fox", "--out", &images]].concat());
    }
    Ok(())
}

/// The split that the plan's seed makes, and the plan knowing its size.
fn with_data(plan: Plan, source: &dyn PairSource) -> (Plan, tastemaker_data::split::Split) {
    let choose = match plan.data.held_out_choice {
        HeldOutChoice::Counted => split,
        HeldOutChoice::Drawn => split_drawn,
    };
    let mut split = choose(source, plan.data.held_out_fraction, plan.train.seed);
    split.train.truncate(plan.data.max_train_samples.unwrap_or(usize::MAX));
    (plan.with_data(split.train.len() as u64), split)
}
