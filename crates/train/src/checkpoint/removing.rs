//! Removing checkpoints, but not what others put into their folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tastemaker_models::adapters::{FILE_NAME, KOHYA_FILE_NAME};
use tastemaker_store::{StoreError, atomic, sealed};

use super::{MANIFEST, failed};
use crate::TrainError;

/// Removes a checkpoint. Where others put something into its folder, that stays there, and is returned; what says that it is a
/// checkpoint then goes first.
pub(super) fn remove(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let (mut own, others): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(folder)?.into_iter().partition(|path| is_own(path));
    if others.is_empty() {
        return discard(folder).map(|()| others);
    }
    own.sort_by_key(|path| !path.ends_with(MANIFEST));
    for path in own {
        fs::remove_file(&path).map_err(|error| failed(StoreError::io("remove", &path, error)))?;
    }
    Ok(others)
}

/// Removes a folder so that it is never seen in part: it loses its name first.
pub(super) fn discard(folder: &Path) -> Result<(), TrainError> {
    let fail = |error| failed(StoreError::io("remove", folder, error));
    let doomed = folder.with_file_name(".tmp-removed-checkpoint");
    match fs::remove_dir_all(&doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    match fs::rename(folder, &doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
        Ok(()) => fs::remove_dir_all(&doomed).map_err(fail),
    }
}

/// Puts the files of a whole checkpoint into a folder where others have theirs; what says that it is one comes last.
pub(super) fn move_into(from: &Path, to: &Path) -> Result<(), TrainError> {
    let mut files = entries(from)?;
    files.sort_by_key(|path| path.ends_with(MANIFEST));
    for file in files {
        atomic::rename(&file, to.join(file.file_name().unwrap_or_default())).map_err(failed)?;
    }
    fs::remove_dir(from).map_err(|error| failed(StoreError::io("remove", from, error)))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => {
            let found = found.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
            found.map_err(|error| failed(StoreError::io("read", folder, error)))
        }
    }
}

/// Whether something in the folder of a checkpoint is of it: the manifest, the state, or the adapter under a name of the run's.
fn is_own(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) else {
        return false;
    };
    let state = name.strip_prefix("state").and_then(|rest| rest.strip_suffix(".safetensors"));
    let is_rank = |rest: &str| rest.strip_prefix('-').is_some_and(|rank| rank.parse::<usize>().is_ok());
    let adapter = || {
        let manifest = sealed::read(path.with_file_name(MANIFEST)).ok()?.value;
        Some(format!("{}.safetensors", manifest.pointer("/plan/output/output_name")?.as_str()?))
    };
    [MANIFEST, FILE_NAME, KOHYA_FILE_NAME].contains(&name)
        || state.is_some_and(|rest| rest.is_empty() || is_rank(rest))
        || atomic::is_unfinished(name.as_ref())
        || adapter().is_some_and(|adapter| adapter == name)
}
