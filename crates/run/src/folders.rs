//! Names that a run gives to files and folders of its own, which no setting may take for something else.

use std::path::{Component, Path, PathBuf};

use crate::Problem;
use crate::plan::Plan;

const FOLDERS: [&str; 5] = ["model", "unet", "transformer", "images", "pictures"];
const FILES: [&str; 3] = ["plan.json", "events.jsonl", "readme.md"];

/// Settings that name a place among the files of the run itself, or that of the run.
pub(crate) fn misplaced(plan: &Plan) -> Vec<Problem> {
    const WANTED: &str = "a folder that is not the run's own: not the output folder, nor model, unet, transformer, images, a checkpoint or a file in it";
    if plan.output_dir.as_os_str().is_empty() {
        return Vec::new();
    }
    let out = plain(&plan.output_dir);
    let logs = plan.output_dir.join(&plan.logging.logging_dir).join(&plan.logging.tracker_name);
    let places = [
        ("logging.logging_dir", Some(&plan.logging.logging_dir), Some(&logs)),
        ("data.cache_to", plan.data.cache_to.as_ref(), plan.data.cache_to.as_ref()),
        ("train.reference_dir", plan.train.reference_dir.as_ref(), plan.train.reference_dir.as_ref()),
    ];
    let wrong = places.into_iter().filter_map(|(key, typed, place)| {
        let place = plain(place?);
        let inside = place.strip_prefix(&out).ok()?;
        let is_own =
            inside.components().next().is_none_or(|first| is_own(&first.as_os_str().to_string_lossy()));
        let found = typed?.display().to_string();
        is_own.then_some(Problem::Value { key, found, wanted: WANTED })
    });
    wrong.collect()
}

/// Some file systems do not tell small letters from capitals.
fn is_own(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_file = FILES.contains(&name.as_str()) || name.ends_with(".safetensors");
    is_file || FOLDERS.contains(&name.as_str()) || name.starts_with("checkpoint-")
}

/// The same place without `.` and `..`, from the root where the working folder is known.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}
