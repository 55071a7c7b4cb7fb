//! Opening sets of pairs: here, in the Hub's cache, in object storage or on a web server.

mod reading;

use anyhow::Result;
use tastemaker_data::formats::{self, OpenSettings};
use tastemaker_data::set::PairSet;
use tastemaker_data::skipped::in_words;
use tastemaker_data::{PairSource, Skipped, exclusions};
use tastemaker_hub::part_of;
use tastemaker_hub::remote::{self, Settings};
use tastemaker_models::pipeline::{CutCaptions, Model};
use tastemaker_run::{DataPlan, Plan};
use tastemaker_store::tree::Location;
use tastemaker_store::tree::braces::common_folder;

use crate::exit::UsageError;
use crate::hub::{check_proxies, locate_dataset, process};
use crate::progress::counted;
pub use reading::ReadingFlags;

/// Which part of a dataset is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part<'a> {
    /// Its configuration, of several.
    pub config: Option<&'a str>,
    /// Its split, of several.
    pub split: Option<&'a str>,
}

/// What splits are called; a set in which nothing is called so has none.
const SPLITS: [&str; 8] = ["train", "training", "test", "testing", "validation", "valid", "val", "dev"];

/// Beginnings of the variables that say how to reach object storage.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The place that a name stands for: the folder of a fetched dataset; anything else stands for itself.
///
/// # Errors
/// [`tastemaker_hub::HubError::NotCached`] for the name of a dataset that was not fetched.
pub fn find(name: &str) -> Result<String> {
    if is_address(name) {
        return Ok(name.to_owned());
    }
    let Some(folder) = locate_dataset(name)? else { return Ok(name.to_owned()) };
    folder.into_os_string().into_string().map_err(|folder| {
        UsageError(format!("the folder {} is not UTF-8; choose another cache", folder.display())).into()
    })
}

/// Opens pairs by path, address or name.
///
/// # Errors
/// As [`find`], and whatever is wrong with them.
pub fn open(name: &str, part: Part<'_>, settings: &OpenSettings) -> Result<PairSet> {
    Ok(formats::open_with(&location(name, part)?, settings)?)
}

/// Opens the pairs of a plan.
///
/// # Errors
/// As [`open`], and whatever is wrong with the plan's method or its list of exclusions.
pub fn of_plan(plan: &Plan) -> Result<PairSet> {
    let DataPlan { train_data_dir, dataset_config_name, dataset_split_name, format, columns, .. } =
        &plan.data;
    let part = Part { config: dataset_config_name.as_deref(), split: dataset_split_name.as_deref() };
    let method = plan.method.objective()?;
    let (unpaired, liked) = (method.is_unpaired(), !method.needs().loser);
    let settings = OpenSettings { unpaired, liked, ..reading::open_settings(format.clone(), columns)? };
    let mut set = open(train_data_dir, part, &settings)?;
    if let Some(list) = &plan.data.exclude {
        exclusions::apply(list, &mut set)?;
    }
    Ok(set)
}

/// Prints how many rows of a set are skipped, and the first that are not just ties.
pub fn report_skipped(source: &dyn PairSource) {
    report_rows(source, source.skipped());
}

/// Prints how many rows these are that are skipped, and the first that are not just ties.
pub fn report_rows(source: &dyn PairSource, rows: &[Skipped]) {
    if !rows.is_empty() {
        eprintln!("note: skipped {}: {}", counted(rows.len() as u64, "row"), in_words(rows));
        name_skipped(source, rows);
    }
}

/// Names the first rows that are skipped and are not just ties.
pub fn name_skipped(source: &dyn PairSource, rows: &[Skipped]) {
    const NAMED: usize = 5;
    let detailed: Vec<_> = rows.iter().filter(|row| !row.detail.is_empty()).collect();
    for row in detailed.iter().take(NAMED) {
        let (place, found) = row.named(source.place(row.id));
        eprintln!("note: {place}: {found}");
    }
    if detailed.len() > NAMED {
        eprintln!("note: and {} more", detailed.len() - NAMED);
    }
}

/// Prints how many captions of a set are longer than the text encoders of a model see.
///
/// # Errors
/// [`tastemaker_models::ModelError`] for a tokenizer that cannot be read.
pub fn report_cut(set: &PairSet, model: &Model) -> Result<()> {
    let CutCaptions { n_captions, n_tokens, limit } = model.cut_captions(set.texts().iter())?;
    let (captions, are) = if n_captions == 1 { ("caption", "is") } else { ("captions", "are") };
    if n_captions > 0 {
        eprintln!(
            "note: {n_captions} {captions} {are} longer than the {limit} tokens that the text encoder sees, and {n_tokens} tokens are \
             cut; --max_token_length 150 or 225 encodes more"
        );
    }
    Ok(())
}

/// The files that are meant by a path, an address or a name.
///
/// # Errors
/// As [`find`]; [`tastemaker_store::StoreError`] or [`tastemaker_hub::HubError`] if there is nothing; [`UsageError`] for a part that is not there.
pub fn location(name: &str, part: Part<'_>) -> Result<Location> {
    let place = find(name)?;
    let whole = at(&place)?;
    if part.config.is_none() && part.split.is_none() {
        return Ok(whole);
    }
    let entries = whole.entries()?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let is_split = |split: &&str| part_of(&names, None, Some(split)).is_ok();
    if part.split.is_some_and(|split| !is_split(&split)) && !SPLITS.iter().any(is_split) {
        return Err(UsageError(format!("{name} has no splits; drop --dataset_split_name")).into());
    }
    let chosen = part_of(&names, part.config, part.split)
        .map_err(|wanted| UsageError(format!("{name} has {} files of data; wanted {wanted}", names.len())))?;
    let chosen: Vec<String> = chosen.into_iter().map(str::to_owned).collect();
    let folder = common_folder(&chosen);
    let all_below = part_of(&names, None, None).unwrap_or_default();
    let n_below = all_below.iter().filter(|name| name.starts_with(folder)).count();
    if !folder.is_empty() && !whole.names_files() && n_below == chosen.len() {
        // A whole folder is what readers know best.
        return at(&format!("{}/{folder}", place.trim_end_matches('/')));
    }
    Ok(Location::new(whole.tree().clone(), chosen, whole.typed()))
}

fn at(place: &str) -> Result<Location> {
    Ok(if is_address(place) { remote::locate(place, &settings()?)? } else { Location::local(place)? })
}

fn is_address(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '\\']))
}

/// How to reach what is elsewhere, as the environment says.
///
/// # Errors
/// Those of [`check_proxies`].
fn settings() -> Result<Settings> {
    check_proxies(&process)?;
    let known = |name: &str| VARIABLES.iter().any(|start| name.starts_with(start));
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let options =
        std::env::vars_os().filter_map(text).filter(|(name, value)| known(name) && !value.is_empty());
    Ok(Settings { options: options.collect(), proxy_from_environment: true, ..Settings::default() })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        folder
    }

    fn chosen(
        folder: &tempfile::TempDir,
        config: Option<&str>,
        split: Option<&str>,
    ) -> (PathBuf, Vec<String>) {
        let found = location(folder.path().to_str().unwrap(), Part { config, split }).unwrap();
        let paths = found.entries().unwrap().into_iter().map(|entry| entry.path).collect();
        (found.tree().place(""), paths)
    }

    #[test]
    fn a_split_that_is_a_folder_is_that_folder() {
        let folder = folder(&["README.md", "train/metadata.jsonl", "train/1.png", "test/metadata.jsonl"]);
        let (place, paths) = chosen(&folder, None, Some("train"));
        assert_eq!(place, folder.path().join("train/"));
        assert_eq!(paths, ["1.png", "metadata.jsonl"]);
    }

    #[test]
    fn a_split_among_others_is_its_files() {
        let names = [
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        ];
        let folder = folder(&names);
        let (place, paths) = chosen(&folder, None, Some("train"));
        assert_eq!(place, folder.path().join(""));
        assert_eq!(paths, names[1..]);
        assert_eq!(chosen(&folder, Some("data"), None).1.len(), 3);
        let error =
            location(folder.path().to_str().unwrap(), Part { config: None, split: Some("dev") }).unwrap_err();
        assert!(error.to_string().ends_with("where the names are: test, train"), "{error}");
    }

    #[test]
    fn a_set_without_splits_says_so() {
        let folder = folder(&["metadata.jsonl", "images/1.png", "images/2.png"]);
        let name = folder.path().to_str().unwrap();
        let error = location(name, Part { config: None, split: Some("train") }).unwrap_err().to_string();
        assert_eq!(error, format!("{name} has no splits; drop --dataset_split_name"));
    }

    #[test]
    fn addresses_have_a_scheme() {
        for (name, is) in [
            ("s3://b/a", true),
            ("file:///a", true),
            ("org/name", false),
            ("a/b://c", false),
            ("c:/x", false),
        ] {
            assert_eq!(is_address(name), is, "{name}");
        }
    }
}
