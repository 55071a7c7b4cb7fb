//! What was typed, as a study.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tastemaker_data::formats::OpenSettings;
use tastemaker_eval::compare::Plan;
use tastemaker_generate::prompts::PromptSet;
use tastemaker_web::study::{FolderOfImages, Study, StudyPrompt, of_folders, of_pairs};

use crate::exit::UsageError;
use crate::pairs::{self, Part};
use crate::prompts::find;

/// Finds out what it is: a comparison, folders of images, or a set of pairs.
pub fn study(what: &[String], prompts: Option<&str>, reading: &OpenSettings) -> Result<Study> {
    let [only] = what else { return folders(what, prompts) };
    match Plan::read(Path::new(only).join("compare.json"))? {
        Some(plan) => comparison(only, &plan, prompts),
        None => {
            if prompts.is_some() {
                let what =
                    format!("--prompts: {only} is a set of pairs, which has its captions; drop the flag");
                return Err(UsageError(what).into());
            }
            let reading = OpenSettings { ties: true, ..reading.clone() };
            let set = pairs::open(only, Part::default(), &reading)?;
            pairs::report_skipped(&set);
            Ok(of_pairs(only, Arc::new(set))?)
        }
    }
}

/// The prompts of a comparison: those that were typed, or those it names, if they are the same still.
pub fn prompts_of(plan: &Plan, typed: Option<&str>) -> Result<PromptSet> {
    let name = typed.unwrap_or(&plan.prompts.name);
    let is_ours = name == "small" || name == "demo" || name.starts_with("demo:");
    if typed.is_none() && !is_ours {
        let what = format!("the comparison is of the prompts {name}, a file; say where it is with --prompts");
        return Err(UsageError(what).into());
    }
    let set = find(name)?;
    if set.fingerprint() != plan.prompts.fingerprint {
        let what = format!(
            "the images of the comparison are of other prompts than {name} has now; give those with --prompts"
        );
        return Err(UsageError(what).into());
    }
    Ok(set)
}

/// Prompts as a study has them; those that are skipped have no text.
pub fn listed(set: PromptSet) -> Vec<StudyPrompt> {
    set.prompts
        .into_iter()
        .map(|prompt| StudyPrompt { text: prompt.text, category: prompt.category })
        .collect()
}

fn comparison(folder: &str, plan: &Plan, prompts: Option<&str>) -> Result<Study> {
    let prompts = listed(prompts_of(plan, prompts)?);
    let mut folders = Vec::new();
    for model in &plan.models {
        // Images that were there already are still where they were; the second name is that of earlier versions.
        let below = ["images", "pictures"].map(|name| Path::new(folder).join(name).join(&model.name));
        let mut places = below.into_iter().chain([PathBuf::from(&model.what)]);
        let Some(place) = places.find(|place| place.is_dir()) else {
            let what =
                format!("the images of {} are gone from {folder}; run the comparison again", model.name);
            return Err(UsageError(what).into());
        };
        folders.push(FolderOfImages { name: model.name.clone(), folder: place });
    }
    Ok(of_folders(folder, &folders, Some(&prompts))?)
}

fn folders(what: &[String], prompts: Option<&str>) -> Result<Study> {
    let mut folders: Vec<FolderOfImages> = Vec::new();
    for typed in what {
        let (name, place) = match typed.split_once('=') {
            Some((name, place)) if !name.contains('/') && !Path::new(typed).exists() => (Some(name), place),
            _ => (None, typed.as_str()),
        };
        let folder = PathBuf::from(place);
        if !folder.is_dir() {
            let what = format!("{place} is no folder; wanted folders of images, one for each model");
            return Err(UsageError(what).into());
        }
        let own = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.map(str::to_owned).or(own).unwrap_or_else(|| place.to_owned());
        if folders.iter().any(|earlier| earlier.name == name) {
            let what = format!("two folders are named `{name}`; give one another name, as in other={place}");
            return Err(UsageError(what).into());
        }
        folders.push(FolderOfImages { name, folder });
    }
    let prompts = prompts.map(find).transpose()?.map(listed);
    Ok(of_folders(&what.join(" "), &folders, prompts.as_deref())?)
}
