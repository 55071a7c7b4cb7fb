//! What is compared: what was typed, and what is found there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tastemaker_eval::EvalError;
use tastemaker_eval::compare::match_images;
use tastemaker_generate::GenerateSettings;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_store::tree::{LocalTree, Tree, unread};

use super::generating::{recorded, settings_of};
use super::samples::SampleSet;
use super::{CompareArgs, SharedParts};
use crate::exit::UsageError;
use crate::hub::locate;
use crate::models::{self, Found, find, on_noise_of, token_length};
use crate::progress::counted;
use crate::scoring::{Unscored, image_list, report_unscored};

/// One of the models, or folders of images, that are compared.
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// What was typed, without the name.
    pub what: String,
    /// Where its images come from.
    pub source: Source,
    /// SHA-256 of that.
    pub fingerprint: String,
}

/// Where images come from.
pub enum Source {
    /// They are generated.
    Model {
        /// The model.
        model: Box<Model>,
        /// A LoRA on it.
        lora: Option<PathBuf>,
        /// How it generates.
        settings: GenerateSettings,
        /// The same by the names of the flags.
        recorded: BTreeMap<String, String>,
    },
    /// They are there: the folder, and the file for each sample below it.
    Images {
        /// The folder.
        folder: PathBuf,
        /// A file for each sample.
        files: Vec<PathBuf>,
    },
}

/// Finds and opens all, in the order typed. Images are not read yet.
///
/// # Errors
/// [`UsageError`] for names that are not usable or given twice, and for parts without a model; whatever keeps a model from being
/// opened.
pub fn open(args: &CompareArgs) -> Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for typed in &args.models {
        let (name, what) = named(typed);
        let name = name.map_or_else(|| default_name(what), str::to_owned);
        check_name(&name, typed)?;
        if candidates.iter().any(|earlier| earlier.name == name) {
            return Err(UsageError(format!(
                "two models are named `{name}`; give one another name, as in other={what}"
            ))
            .into());
        }
        let source = source(what, args).with_context(|| format!("model `{name}`"))?;
        candidates.push(Candidate { name, what: what.to_owned(), source, fingerprint: String::new() });
    }
    Ok(candidates)
}

fn source(what: &str, args: &CompareArgs) -> Result<Source> {
    let (base, part) = match what.split_once('+').filter(|_| !Path::new(what).exists()) {
        Some((base, part)) => (Some(base), part),
        None => (None, what),
    };
    let base = || match (base, args.base.as_deref()) {
        (Some(base), _) | (None, Some(base)) => Ok(base),
        (None, None) => Err(UsageError(format!("{part} needs a model: give --base, or type MODEL+{part}"))),
    };
    let (name, revision) = revised(part);
    let found = find(name, revision)?;
    let trained_with = match &found {
        Found::Model(path) | Found::Lora(path, _) | Found::UNet(path, _) => token_length(path),
        Found::Folder(_) => None,
    };
    let (sources, lora) = match found {
        Found::Folder(folder) => return Ok(Source::Images { folder, files: Vec::new() }),
        Found::Model(_) if what.contains('+') && part != what => {
            return Err(
                UsageError(format!("{part} is a whole model; wanted a LoRA or a UNet after the +")).into()
            );
        }
        Found::Model(model) => (models::sources(model)?, None),
        // What was typed goes before what the run's plan says.
        Found::Lora(lora, own) => {
            (own.map_or_else(|| model_at(base()?), |own| typed_or(base(), *own))?, Some(lora))
        }
        Found::UNet(unet, own) => {
            let sources = own.map_or_else(|| model_at(base()?), |own| typed_or(base(), *own))?;
            (ModelSources { unet: Some(unet), ..sources }, None)
        }
    };
    let SharedParts { pretrained_vae_model_name_or_path: vae, variant, shift } = &args.parts;
    let vae = vae.as_deref().map(|vae| locate(vae, None)).transpose()?.or(sources.vae);
    let variant = variant.clone().or(sources.variant);
    let max_token_length = args.flags.max_token_length.or(trained_with).or(sources.max_token_length);
    let shift = shift.or(sources.shift);
    let model = Model::from_sources(&ModelSources { vae, variant, max_token_length, shift, ..sources })?;
    let model = on_noise_of(model, lora.as_deref())?;
    let settings = settings_of(&model, args)?;
    let recorded = recorded(&settings, &args.flags, args.parts.shift);
    Ok(Source::Model { model: Box::new(model), lora, settings, recorded })
}

/// The model that was typed, if one was, else the one a run began with.
fn typed_or(typed: Result<&str, UsageError>, own: ModelSources) -> Result<ModelSources> {
    typed.map_or(Ok(own), model_at)
}

/// The model of this name, which can also be a training's output folder.
fn model_at(name: &str) -> Result<ModelSources> {
    let (place, revision) = revised(name);
    match find(place, revision)? {
        Found::Model(path) => models::sources(path),
        _ => Err(UsageError(format!("{name} is no model to put a part on")).into()),
    }
}

/// A name and the revision that may stand after it.
fn revised(what: &str) -> (&str, Option<&str>) {
    match what.rsplit_once('@').filter(|_| !Path::new(what).exists()) {
        Some((name, revision)) => (name, Some(revision)),
        None => (what, None),
    }
}

/// Splits `NAME=MODEL`; a `=` after a `/`, or in the name of something that is there, is part of the name of a file.
fn named(typed: &str) -> (Option<&str>, &str) {
    match typed.split_once('=') {
        Some((name, what)) if !name.contains('/') && !Path::new(typed).exists() => (Some(name), what),
        _ => (None, typed),
    }
}

/// The last part of a path that says something.
fn default_name(what: &str) -> String {
    let whole = Path::new(what).exists();
    let part = what.rsplit_once('+').filter(|_| !whole).map_or(what, |(_, part)| part);
    let part = part.rsplit_once('@').filter(|_| !whole).map_or(part, |(name, _)| name);
    let common = ["model", "unet", "transformer", "pytorch_lora_weights", "images", "pictures", "."];
    let names = Path::new(part).components().rev().filter_map(|component| component.as_os_str().to_str());
    let stem = |name: &str| {
        let endings = [".safetensors", ".ckpt", ".bin", ".pt", ".pth"];
        endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
    };
    let mut names = names.map(stem);
    let last = names.next().unwrap_or_default();
    if common.contains(&last.as_str()) { names.next().unwrap_or(last) } else { last }
}

fn check_name(name: &str, typed: &str) -> Result<(), UsageError> {
    let fits = !name.is_empty()
        && name.len() <= 80
        && !name.starts_with('.')
        && !name.chars().any(|c| c.is_control() || "/\\:*?\"<>|".contains(c));
    match fits {
        true => Ok(()),
        false => Err(UsageError(format!(
            "`{typed}`: a model cannot be named `{name}`, because its images go to a folder of that name; type NAME={typed}"
        ))),
    }
}

/// Finds the files of folders of images. With `skip`, samples that a folder does not answer are not set.
///
/// # Errors
/// [`EvalError::Images`] for a folder that lacks images, or has none.
pub fn match_folders(candidates: &mut [Candidate], set: &mut SampleSet, skip: bool) -> Result<()> {
    let mut found: Vec<(usize, Vec<Option<String>>)> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let Source::Images { folder, .. } = &candidate.source else { continue };
        let entries = LocalTree::new(folder).entries()?;
        if let Some(unread) = unread(&entries) {
            println!("`{}` has images of formats that are not read: {unread}", candidate.name);
        }
        let names: Vec<String> = entries.into_iter().map(|entry| entry.path).collect();
        let metadata = folder.join("metadata.jsonl");
        let metadata = metadata.is_file().then(|| image_list(&metadata)).transpose()?;
        let metadata = metadata.as_ref().map(|list| list.images.as_slice());
        let refuse = |what: String| EvalError::Images { path: folder.clone(), what };
        let matched = match_images(&names, metadata, &set.prompts.prompts, &set.samples).map_err(refuse)?;
        let missing: Vec<usize> = (0..matched.files.len()).filter(|&i| matched.files[i].is_none()).collect();
        if missing.len() == matched.files.len() || (!missing.is_empty() && !skip) {
            return Err(refuse(lacking(set, &missing, matched.by)).into());
        }
        if !missing.is_empty() {
            println!(
                "`{}` has no image for {} of {}",
                candidate.name,
                missing.len(),
                counted(matched.files.len() as u64, "sample")
            );
        }
        found.push((index, matched.files));
    }
    let keep: Vec<bool> =
        (0..set.samples.len()).map(|sample| found.iter().all(|(_, files)| files[sample].is_some())).collect();
    for (index, matched) in found {
        if let Source::Images { folder, files } = &mut candidates[index].source {
            *files = matched.into_iter().map(|file| folder.join(file.unwrap_or_default())).collect();
        }
    }
    self::keep(candidates, set, &keep)
}

/// Skips samples with an image that cannot be scored, for all models.
///
/// # Errors
/// [`UsageError`] if none is left.
pub fn skip(
    candidates: &mut [Candidate],
    set: &mut SampleSet,
    unscored_samples: &BTreeMap<usize, String>,
) -> Result<()> {
    let n = set.samples.len();
    let unscored: Vec<Unscored> =
        unscored_samples.iter().map(|(&item, why)| Unscored { item, why: why.clone() }).collect();
    report_unscored(&unscored, (n, "sample"));
    let kept: Vec<bool> = (0..n).map(|sample| !unscored_samples.contains_key(&sample)).collect();
    keep(candidates, set, &kept)
}

fn keep(candidates: &mut [Candidate], set: &mut SampleSet, keep: &[bool]) -> Result<()> {
    if !keep.contains(&true) {
        return Err(UsageError("no prompt has an image in every folder".into()).into());
    }
    set.keep(keep);
    for candidate in candidates {
        if let Source::Images { files, .. } = &mut candidate.source {
            let mut kept = keep.iter();
            files.retain(|_| kept.next().copied().unwrap_or(false));
        }
    }
    Ok(())
}

fn lacking(set: &SampleSet, missing: &[usize], by: &str) -> String {
    let examples: Vec<String> = missing
        .iter()
        .take(3)
        .map(|&index| {
            let sample = set.samples[index];
            format!("{} with seed {}", set.prompts.prompts[sample.prompt].id, sample.seed)
        })
        .collect();
    format!(
        "told apart by {by}, it has no image for {} of {}, such as prompt {}; add them, or give --skip_missing to \
         skip these prompts",
        missing.len(),
        counted(set.samples.len() as u64, "sample"),
        examples.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_part_that_says_something() {
        for (what, name) in [
            ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5"),
            ("demo-out/diffusion-dpo/model", "diffusion-dpo"),
            ("sdxl+runs/mapo/pytorch_lora_weights.safetensors", "mapo"),
            ("models/v1-5.safetensors", "v1-5"),
            ("org/name@abc123", "name"),
            ("out/images", "out"),
            ("unet", "unet"),
        ] {
            assert_eq!(default_name(what), name, "{what}");
        }
    }

    #[test]
    fn a_name_stands_before_an_equals_sign() {
        assert_eq!(named("a=b/c"), (Some("a"), "b/c"));
        assert_eq!(named("runs/beta=5000/model"), (None, "runs/beta=5000/model"));
        assert_eq!(named("dpo=runs/beta=5000/model"), (Some("dpo"), "runs/beta=5000/model"));
    }

    #[test]
    fn names_that_are_no_folders_are_refused() {
        assert!(check_name("a b-1.5", "x").is_ok());
        for name in ["", "..", "a/b", "a:b", "a\nb"] {
            assert!(check_name(name, "x").is_err(), "{name:?}");
        }
    }
}
