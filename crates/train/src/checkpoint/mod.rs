//! Checkpoints: folders `checkpoint-N` with everything a run needs to resume from step N as if it had never stopped.
//!
//! A folder holds `state.safetensors` (masters, optimizer, averages; `state-N.safetensors` what rank N owns of a sharded
//! state), `checkpoint.json` (of which run, the state's hash and its own) and,
//! for an adapter, the files that other programs load. It is written under another name, synced and renamed, so it is there
//! whole or not at all. Nothing in it is ever executed.

pub(crate) mod checkpointing;
mod removing;
mod writing;

pub(crate) use writing::{Begun, begin};
pub use writing::{Written, write};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_run::{Plan, RunError, changes, split_changes};
use tastemaker_store::checksum::sha256_file;
use tastemaker_store::sealed::{self, Sealed};
use tastemaker_store::{StoreError, in_full};
use tastemaker_torch::tensors::OneByOne;
use tch::Tensor;

use crate::TrainError;

const PREFIX: &str = "checkpoint-";
const MANIFEST: &str = "checkpoint.json";

/// What a checkpoint is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this structure on disk.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Optimizer steps made.
    pub step: u64,
    /// The plan.
    pub plan: Value,
    /// Fingerprint of the pairs.
    pub pairs: String,
    /// SHA-256 of the network that training started from.
    pub unet: String,
    /// Pairs of one bucket resolution that are drawn together; absent where pairs are drawn one by one: those of one resolution, and
    /// those of runs that an earlier version began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn_in: Option<u64>,
    /// SHA-256 of each file of the state.
    pub sha256: BTreeMap<String, String>,
}

/// What identifies a run beside its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Fingerprint of the pairs.
    pub pairs: String,
    /// SHA-256 of the network that training started from.
    pub unet: String,
    /// Pairs of one bucket resolution that are drawn together, where they are drawn by bucket. A run that resumes keeps it.
    pub drawn_in: Option<u64>,
}

/// What to resume from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest checkpoint of the output folder; from the start if there is none.
    Latest,
    /// This checkpoint: its path, its name in the output folder, or the newest of the run in this folder.
    From(PathBuf),
}

impl Manifest {
    /// Version on disk that this code writes; it reads version 1 too, which has no checksum of the file itself.
    pub const FORMAT: u32 = 2;
}

/// The checkpoints of a run by their steps, oldest first.
pub fn list(output_dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(output_dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            entry.path().join(MANIFEST).is_file().then(|| (step, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Their names, oldest first.
pub fn names(output_dir: &Path) -> Vec<String> {
    list(output_dir).into_iter().map(|(step, _)| format!("{PREFIX}{step}")).collect()
}

/// The checkpoint to resume from, if there is one.
///
/// # Errors
/// [`TrainError::NoCheckpoint`] for a path that is none.
pub fn find(output_dir: &Path, resume: &Resume) -> Result<Option<PathBuf>, TrainError> {
    let Resume::From(named) = resume else { return Ok(newest(output_dir)) };
    let inside = output_dir.join(named);
    let found = [named, &inside].into_iter().find(|path| path.join(MANIFEST).is_file());
    match found.cloned().or_else(|| newest(named)) {
        Some(path) => Ok(Some(path)),
        None => {
            let there = names(output_dir);
            Err(TrainError::NoCheckpoint { path: named.clone(), output_dir: output_dir.to_owned(), there })
        }
    }
}

fn newest(output_dir: &Path) -> Option<PathBuf> {
    list(output_dir).pop().map(|(_, path)| path)
}

/// Reads a checkpoint and holds it against the run that wants to resume from it.
///
/// # Errors
/// [`TrainError::OtherCheckpoint`] with all that differs; [`TrainError::DamagedCheckpoint`].
pub fn read(path: &Path, plan: &Plan, identity: &Identity) -> Result<Saved, TrainError> {
    let damaged = |found: String| TrainError::DamagedCheckpoint { path: path.to_owned(), found };
    let Sealed { value, is_sealed } =
        sealed::read(path.join(MANIFEST)).map_err(|error| damaged(in_full(&error)))?;
    let format = value.get("format").cloned().unwrap_or_default();
    if !(format == 1 && !is_sealed || format == Manifest::FORMAT && is_sealed) {
        let sealed = if is_sealed { "with" } else { "without" };
        let found = format!("{MANIFEST} of format {format} {sealed} a checksum, wanted {}", Manifest::FORMAT);
        return Err(damaged(found));
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
    let here = serde_json::to_value(plan).map_err(|error| damaged(error.to_string()))?;
    let mut differences = changes(&manifest.plan, &here);
    for (what, there, here) in
        [("the pairs", &manifest.pairs, &identity.pairs), ("the network", &manifest.unet, &identity.unet)]
    {
        if there != here {
            differences.push(format!("{what} changed since"));
        }
    }
    if !differences.is_empty() {
        return Err(TrainError::OtherCheckpoint { path: path.to_owned(), differences });
    }
    let last = plan.train.max_train_steps;
    if manifest.step > last {
        return Err(damaged(format!("it is after step {}, and this run ends at step {last}", manifest.step)));
    }
    let open = |(name, wanted): (&String, &String)| {
        // A name out of a file on disk must not lead elsewhere.
        let state = path.join(Path::new(name).file_name().unwrap_or_default());
        let found = sha256_file(&state).map_err(|error| damaged(error.to_string()))?;
        if found != *wanted {
            return Err(damaged(format!("{name} is not what was written")));
        }
        OneByOne::open(&state).map_err(|error| damaged(error.to_string()))
    };
    let parts = manifest.sha256.iter().map(open).collect::<Result<_, _>>()?;
    let drawn_in = manifest.drawn_in;
    if drawn_in.is_some_and(|group| group == 0 || !plan.effective_batch().is_multiple_of(group)) {
        let wanted = format!("a whole number of them in the {} pairs of a step", plan.effective_batch());
        return Err(damaged(format!(
            "it draws pairs in groups of {}, wanted {wanted}",
            drawn_in.unwrap_or(0)
        )));
    }
    Ok(Saved { step: manifest.step, drawn_in, split_changes: split_changes(&manifest.plan, &here), parts })
}

/// The state in a checkpoint, whoever wrote which part.
#[derive(Debug)]
pub struct Saved {
    /// Optimizer steps made.
    pub step: u64,
    /// How the run that wrote it split the pairs of a step otherwise; none where bits are the same.
    pub split_changes: Vec<String>,
    /// Pairs of one bucket resolution that are drawn together, where they are drawn by bucket.
    pub drawn_in: Option<u64>,
    parts: Vec<OneByOne>,
}

impl Saved {
    /// The tensor of this name.
    pub fn read(&self, name: &str) -> Option<Tensor> {
        self.parts.iter().find_map(|part| part.read(name))
    }
}

fn failed(error: StoreError) -> TrainError {
    TrainError::Run(RunError::from(error))
}
