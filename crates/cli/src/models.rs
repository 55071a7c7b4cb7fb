//! What stands where a model, a run or a LoRA is named: one way to find it, for all commands.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tastemaker_generate::GenerateError;
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{ChosenNoise, FILE_NAME, KOHYA_FILE_NAME, LoraFile, LoraNames, Nature};
use tastemaker_models::original::spelled;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_run::RunDir;
use tastemaker_store::StoreError;
use tastemaker_train::session;
use tastemaker_weights::safetensors::Header;

use crate::exit::{Blame, UsageError};
use crate::hub::{locate, locate_in_snapshot};

/// What a name stands for.
#[derive(Debug)]
pub enum Found {
    /// A whole model: a folder in diffusers layout or a single file.
    Model(PathBuf),
    /// A LoRA, and the files of the model it was trained on where a run's plan beside it says so.
    Lora(PathBuf, Option<Box<ModelSources>>),
    /// The folder of a UNet or transformer, or one with it in `unet/` or `transformer/`; as with a LoRA.
    UNet(PathBuf, Option<Box<ModelSources>>),
    /// Any other folder.
    Folder(PathBuf),
}

/// A model, opened, with the LoRA that belongs to it.
#[derive(Debug)]
pub struct Chosen {
    /// The model.
    pub model: Model,
    /// The file of its LoRA.
    pub lora: Option<PathBuf>,
    /// The files of the model that a run began with, if it was named by its run.
    pub base: Option<Box<ModelSources>>,
}

/// Says which model it was that gave nothing finite.
pub fn blamed(error: anyhow::Error, model: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(GenerateError::NotFinite { .. }) => error.context(model.to_owned()),
        _ => error,
    }
}

/// What has this name on this machine or among the fetched models, at a revision of these.
///
/// # Errors
/// Those of [`locate`]; [`ModelError`] for a folder of a run without result, and one of several LoRAs.
pub fn find(name: &str, revision: Option<&str>) -> Result<Found> {
    let path = match locate_in_snapshot(name)? {
        Some(file) => file,
        None => locate(name, revision)?,
    };
    if path.is_file() {
        return Ok(match is_lora(&path)? {
            true => Found::Lora(path.clone(), base_of(path.parent())?),
            false => Found::Model(path),
        });
    }
    if !path.is_dir() {
        let wanted = "a model, a run, a LoRA or a folder with one".to_owned();
        return Err(ModelError::from(StoreError::Missing { path, wanted }).into());
    }
    let is_file = |inner: &str| path.join(inner).is_file();
    if is_file("model_index.json") {
        return Ok(Found::Model(path));
    }
    let base = base_of(Some(&path))?;
    for inner in ["model/model_index.json", "model.safetensors"] {
        if base.is_some() && is_file(inner) {
            return Ok(Found::Model(path.join(inner.trim_end_matches("/model_index.json"))));
        }
    }
    // Earlier versions had a folder of results without a plan.
    if is_file("model/model_index.json") {
        return Ok(Found::Model(path.join("model")));
    }
    if let Some(lora) = only_lora(&path)? {
        return Ok(Found::Lora(lora, base));
    }
    if is_file("config.json") || is_file("unet/config.json") || is_file("transformer/config.json") {
        let base = plan_beside(&path)?;
        return Ok(Found::UNet(path, base));
    }
    if base.is_some() {
        let wanted =
            "the result of this run: it has not ended, so resume it with --resume_from_checkpoint latest";
        let path = path.join(FILE_NAME);
        return Err(ModelError::from(StoreError::Missing { path, wanted: wanted.into() }).into());
    }
    Ok(Found::Folder(path))
}

/// The files of a whole model. A single file that a run wrote has the configurations of the model that the run began with, for networks
/// of sizes that nobody published have none of their own.
///
/// # Errors
/// A plan that cannot be read.
pub fn sources(path: PathBuf) -> Result<ModelSources> {
    let is_result = path.is_file() && path.file_name().is_some_and(|name| name == "model.safetensors");
    let base = if is_result { base_of(path.parent())? } else { None };
    let config = base.and_then(|base| base.config.or(Some(base.model).filter(|model| model.is_dir())));
    Ok(ModelSources { config, ..ModelSources::of(path) })
}

/// The model of this name, opened, if there is a whole one.
pub fn whole(name: &str, revision: Option<&str>) -> Option<Model> {
    let Ok(Found::Model(path)) = find(name, revision) else { return None };
    Model::from_sources(&sources(path).ok()?).ok()
}

/// The file of the LoRA of this name: a file, a folder or fetched repository with one, or a run.
///
/// # Errors
/// [`ModelError`] for what holds none, or several; as [`find`].
pub fn find_lora(name: &str) -> Result<PathBuf> {
    match find(name, None)? {
        Found::Lora(path, _) => Ok(path),
        // What a file that has no header is shows when it is read.
        Found::Model(path) if path.is_file() => Ok(path),
        Found::Model(path) | Found::UNet(path, _) => {
            let wanted = "a LoRA; this is a model, which goes where models go";
            Err(ModelError::from(StoreError::malformed(&path, "weights of a whole network", wanted)).into())
        }
        Found::Folder(path) => {
            let wanted = "a folder with a LoRA in a .safetensors file";
            Err(ModelError::from(StoreError::malformed(&path, "no LoRA", wanted)).into())
        }
    }
}

/// Reads a LoRA for a model, and says where the two do not belong together.
///
/// # Errors
/// Those of [`LoraFile::read_for`].
pub fn read_lora(path: impl AsRef<Path>, model: &Model) -> Result<LoraFile, ModelError> {
    let path = path.as_ref();
    let file = LoraFile::read_for(path, model)?;
    warn_of_prediction(path, model)?;
    Ok(file)
}

/// A model on the noise that the training of its LoRA was set to, and a word about it where the model's own files say otherwise.
///
/// # Errors
/// Those of [`Model::on_noise`].
pub fn on_noise_of(model: Model, lora: Option<&Path>) -> Result<Model, ModelError> {
    let Some(lora) = lora else { return Ok(model) };
    let before = model.schedule()?.schedule;
    let model = model.on_noise(ChosenNoise::of(lora))?;
    let after = model.schedule()?.schedule;
    if before != after {
        let levels = if after.ends_in_noise() { ", zero terminal SNR" } else { "" };
        let predicted = spelled(after.prediction());
        eprintln!(
            "note: {} was trained on {predicted}{levels}, as its header says; so it is used",
            lora.display()
        );
    }
    Ok(model)
}

/// Says where a LoRA was trained on a model that predicts something else.
///
/// # Errors
/// [`ModelError`] for noise levels that cannot be read.
pub fn warn_of_prediction(path: &Path, model: &Model) -> Result<(), ModelError> {
    let predicted = model.schedule()?.schedule.prediction();
    if let Some(stated) = LoraFile::stated_prediction(path).filter(|stated| *stated != predicted) {
        eprintln!(
            "warning: {} was trained on a model that predicts {}, as its header says, and this one predicts {}: its images are likely \
             ruined; name the model it was trained on, or one of that --prediction_type",
            path.display(),
            spelled(stated),
            spelled(predicted)
        );
    }
    Ok(())
}

/// The LoRA to use with the model called `model`: the one typed beside it, or its `own` where it is a run of one.
///
/// # Errors
/// [`UsageError`] for two; as [`find_lora`].
pub fn chosen_lora(model: &str, own: Option<PathBuf>, typed: Option<&str>) -> Result<Option<PathBuf>> {
    match (own, typed) {
        (Some(_), Some(typed)) => Err(two_loras(model, typed).into()),
        (Some(own), None) => Ok(Some(own)),
        (None, typed) => typed.map(find_lora).transpose(),
    }
}

/// What is said where a run that ended in a LoRA gets another one.
pub fn two_loras(model: &str, typed: &str) -> UsageError {
    UsageError(format!(
        "{model} is a LoRA already, and {typed} would be a second one: name its base model, or drop one"
    ))
}

/// The longest captions, in tokens, that a model or LoRA was trained on, as the header of a LoRA in kohya's naming says it, or the plan of
/// the run that it is a result or checkpoint of; `None` where neither is there.
pub fn token_length(place: &Path) -> Option<u32> {
    let header = Header::read(place).ok();
    let stated = header.and_then(|header| header.metadata.get("ss_max_token_length")?.parse().ok());
    let of_run = || {
        let folders = place.ancestors().take(if place.is_file() { 3 } else { 2 });
        let run = folders.into_iter().find(|folder| folder.join("plan.json").is_file())?;
        RunDir::open(run).ok().map(|(_, plan)| plan.model.max_token_length)
    };
    stated.or_else(of_run)
}

/// What the plan of the run that a UNet is the result of says of its model; `None` where there is no run.
///
/// # Errors
/// A plan that cannot be read.
pub fn plan_beside(unet: &Path) -> Result<Option<Box<ModelSources>>> {
    Ok(match base_of(Some(unet))? {
        Some(sources) => Some(sources),
        None => base_of(unet.parent())?,
    })
}

/// The files of the model that the run in this folder began with, by its plan; `None` where there is no run.
fn base_of(folder: Option<&Path>) -> Result<Option<Box<ModelSources>>> {
    let folder = match folder {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(None),
    };
    if !folder.join("plan.json").is_file() {
        return Ok(None);
    }
    let (_, plan) = RunDir::open(folder).map_err(anyhow::Error::from).of_model()?;
    Ok(Some(Box::new(session::sources(&plan.model))))
}

/// The one LoRA in a folder, whatever its name: the file of diffusers' name before others, and before its twin in kohya's
/// naming.
///
/// # Errors
/// [`UsageError`] naming several.
fn only_lora(folder: &Path) -> Result<Option<PathBuf>> {
    for name in [FILE_NAME, "pytorch_lora_weights.bin"] {
        if folder.join(name).is_file() {
            return Ok(Some(folder.join(name)));
        }
    }
    let unreadable = |error| ModelError::from(StoreError::io("read", folder, error));
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'))
        .filter(|name| is_lora(&folder.join(name)).unwrap_or(false))
        .collect();
    names.sort();
    let all = names.clone();
    let is_twin = |name: &String| {
        let plain = name.strip_suffix("_kohya.safetensors").map(|stem| format!("{stem}.safetensors"));
        plain.is_some_and(|plain| all.contains(&plain))
    };
    names.retain(|name| !is_twin(name) || name == KOHYA_FILE_NAME);
    match names.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(folder.join(name))),
        _ => Err(UsageError(format!(
            "{} holds {} LoRAs; type the one that is meant: {}",
            folder.display(),
            names.len(),
            names.join(", ")
        ))
        .into()),
    }
}

/// Whether a file holds a LoRA, by its header, or by its ending where there is none.
fn is_lora(path: &Path) -> Result<bool> {
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") | None => {
            let header = Header::read(path).map_err(ModelError::from)?;
            LoraNames::of(&header).is_some() || Nature::is_foreign(&header)
        }
        Some("bin" | "pt" | "pth") => true,
        _ => false,
    })
}
