//! Writing a checkpoint: the state goes to disk tensor by tensor and is hashed on the way, so that it is never in memory twice. What is
//! left after that, syncing and renaming, waits for the disk alone, and another thread can do it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tastemaker_store::version;

use tastemaker_run::Plan;
use tastemaker_store::atomic::Staged;
use tastemaker_store::{StoreError, atomic, sealed};
use tastemaker_torch::tensors::{self, Named};

use super::removing::{discard, move_into, remove};
use super::{Identity, MANIFEST, Manifest, PREFIX, failed, list};
use crate::TrainError;
use crate::distributed::ProcessGroup;

const UNFINISHED: &str = ".tmp-checkpoint-";
const STATE: &str = "state.safetensors";
/// What names of files end with that hold the hash of another rank's part, until it is in the manifest.
const HASH: &str = ".sha256";

/// A checkpoint whose bytes are all written, and which is not in its place yet. It has nothing to do with the state any more.
#[derive(Debug)]
pub(crate) struct Begun {
    output_dir: PathBuf,
    unfinished: PathBuf,
    path: PathBuf,
    /// The state; already in its folder where there are several ranks.
    staged: Option<Staged>,
    manifest: Manifest,
    keep: u32,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its folder.
    pub path: PathBuf,
    /// What others had put into the folders of checkpoints that are gone, and that is still there.
    pub left: Vec<PathBuf>,
}

/// Writes the checkpoint of a state and removes those beyond the newest `keep`; 0 keeps all. `state` is this process's part of
/// it, if it has one. `beside` writes what else belongs in its folder. What others put into folders that are removed stays there.
///
/// # Errors
/// [`TrainError::Run`] if it cannot be written, for instance because the disk is full; checkpoints that are there stay.
/// [`TrainError::Torch`] if a rank is lost.
pub fn write(
    output_dir: &Path,
    plan: &Plan,
    identity: &Identity,
    state: (u64, Option<&Named>),
    ranks: ProcessGroup<'_>,
    keep: u32,
    beside: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<Written, TrainError> {
    let path = output_dir.join(format!("{PREFIX}{}", state.0));
    let begun = begin(output_dir, plan, identity, state, ranks, keep, beside)?;
    let written = begun.map_or(Ok(Written { path, left: Vec::new() }), Begun::finish)?;
    ranks.barrier()?;
    Ok(written)
}

/// The part of [`write()`] that needs the state; the first rank gets what is left to do.
///
/// # Errors
/// As [`write()`].
pub(crate) fn begin(
    output_dir: &Path,
    plan: &Plan,
    identity: &Identity,
    (step, state): (u64, Option<&Named>),
    ranks: ProcessGroup<'_>,
    keep: u32,
    beside: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<Option<Begun>, TrainError> {
    let unfinished = output_dir.join(format!("{UNFINISHED}{step}"));
    let begun = parts(&unfinished, state, ranks).and_then(|staged| {
        if !ranks.is_first() {
            return Ok(None);
        }
        beside(&unfinished)?;
        let plan = serde_json::to_value(plan)
            .map_err(|source| failed(StoreError::Json { path: unfinished.join(MANIFEST), source }))?;
        let mut sha256 = other_hashes(&unfinished)?;
        sha256.extend(staged.iter().map(|staged| (STATE.to_owned(), staged.sha256().to_owned())));
        let manifest = Manifest {
            format: Manifest::FORMAT,
            version: version().to_owned(),
            step,
            plan,
            pairs: identity.pairs.clone(),
            unet: identity.unet.clone(),
            drawn_in: identity.drawn_in,
            sha256,
        };
        let (output_dir, path) = (output_dir.to_owned(), output_dir.join(format!("{PREFIX}{step}")));
        Ok(Some(Begun { output_dir, unfinished: unfinished.clone(), path, staged, manifest, keep }))
    });
    if begun.is_err() && ranks.is_first() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    begun
}

/// Makes the folder and has every process write its part of the state. The first keeps its own to be finished later.
fn parts(
    folder: &Path,
    state: Option<&Named>,
    ranks: ProcessGroup<'_>,
) -> Result<Option<Staged>, TrainError> {
    if ranks.is_first() {
        discard(folder)?;
        fs::create_dir(folder).map_err(|error| failed(StoreError::io("create", folder, error)))?;
    }
    ranks.barrier()?;
    let name = match ranks.rank().rank {
        0 => STATE.to_owned(),
        rank => format!("state-{rank}.safetensors"),
    };
    let stage = |state| tensors::stage(&folder.join(&name), state, &BTreeMap::new());
    let mut staged = state.map(stage).transpose()?;
    if let Some(part) = staged.take_if(|_| !ranks.is_first()) {
        let hash = folder.join(format!("{name}{HASH}"));
        atomic::write_bytes(hash, part.sha256().as_bytes()).map_err(failed)?;
        part.finish().map_err(failed)?;
    }
    ranks.barrier()?;
    Ok(staged)
}

/// What other ranks wrote down of their parts.
fn other_hashes(folder: &Path) -> Result<BTreeMap<String, String>, TrainError> {
    let mut hashes = BTreeMap::new();
    let entries = fs::read_dir(folder).map_err(|error| failed(StoreError::io("read", folder, error)))?;
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if let Some(part) = name.strip_suffix(HASH) {
            let hash = fs::read_to_string(&path).map_err(|e| failed(StoreError::io("read", &path, e)))?;
            hashes.insert(part.to_owned(), hash);
            fs::remove_file(&path).map_err(|e| failed(StoreError::io("remove", &path, e)))?;
        }
    }
    Ok(hashes)
}

impl Begun {
    /// Syncs the state, writes down what the folder is of, and puts it into its place. Older checkpoints go.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn finish(self) -> Result<Written, TrainError> {
        let Self { output_dir, unfinished, path, staged, manifest, keep } = self;
        let put = |staged: Option<Staged>| {
            if let Some(staged) = staged {
                staged.finish().map_err(failed)?;
            }
            sealed::write(unfinished.join(MANIFEST), &manifest).map_err(failed)?;
            // One of the same step is of an earlier attempt of the same run and holds the same.
            match remove(&path)?.is_empty() {
                true => atomic::rename(&unfinished, &path).map_err(failed),
                false => move_into(&unfinished, &path),
            }
        };
        if let Err(error) = put(staged) {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        let mut left = Vec::new();
        if keep > 0 {
            let all = list(&output_dir);
            for (_, path) in all.iter().filter(|(found, _)| *found <= manifest.step).rev().skip(keep as usize)
            {
                left.extend(remove(path)?);
            }
        }
        Ok(Written { path, left })
    }
}
