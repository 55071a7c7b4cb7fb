//! The precomputed reference: the reference's errors on every draw of a run, computed before its first step, and the latents it
//! inverts where a method asks it to.
//!
//! Draws are keyed by seed, pair and repetition, so they are known beforehand, and the reference never changes. Once they
//! are on disk no reference has to be in memory, and runs that differ only in method, optimizer or adapter share them. They lie
//! in a folder of shards, each of some steps; a longer run adds to it.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::{StoreError, atomic, json};

use super::shard::{Draft, PrecomputedStep};
use crate::TrainError;
use crate::data::{Feed, FeedItem};
use crate::step::Engine;

/// The file that says what the folder is of.
const KEY: &str = "reference.json";
/// What earlier versions called it.
const FORMER_KEY: &str = "bank.json";

/// Pairs in one shard, if a step has no more.
const PAIRS_PER_SHARD: u64 = 256;

/// Everything the reference's errors depend on. Two runs of one key draw the same and get the same errors, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecomputedKey {
    /// Version of the folder's layout.
    pub format: u32,
    /// SHA-256 of the reference: its network, and the adapter it has.
    pub reference: String,
    /// SHA-256 of text encoders and tokenizers.
    pub text: String,
    /// Digest of what decides the latents: pairs, resolution and buckets, VAE, element types.
    pub latents: String,
    /// SHA-256 of the noise levels and of which timesteps are drawn.
    pub schedule: String,
    /// SHA-256 of the positions trained on.
    pub positions: String,
    /// Whatever else of the plan decides a draw, or the rounding of an error.
    pub draws: Value,
}

impl PrecomputedKey {
    /// Version of the layout that this code writes and reads.
    pub const FORMAT: u32 = 1;

    /// Whether the reference inverts latents, which are kept beside its errors.
    pub fn inverts(&self) -> bool {
        self.draws.get("corruption").is_some()
    }

    /// The key in one word.
    pub fn digest(&self) -> String {
        sha256_bytes(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// What a folder is of, as another version may have written it.
fn read_key(path: &Path) -> Result<Value, TrainError> {
    let damaged = |found| TrainError::DamagedKey { path: path.to_owned(), found };
    let key: Value = json::read(path).map_err(|error| match error.damage() {
        Some(found) => damaged(found),
        None => error.into(),
    })?;
    match key.get("format") {
        Some(Value::Number(_)) => Ok(key),
        found => Err(damaged(format!("its format is {}, wanted a number", found.unwrap_or(&Value::Null)))),
    }
}

/// What the reference gave, on disk.
#[derive(Debug)]
pub struct PrecomputedReference {
    folder: PathBuf,
    steps_per_shard: u64,
    inverts: bool,
}

impl PrecomputedReference {
    /// Opens the folder of a key whose steps have this many pairs, or begins it.
    ///
    /// # Errors
    /// [`TrainError::OtherPrecomputed`] if the folder is of another key; [`TrainError::DamagedKey`] if nobody can say;
    /// [`TrainError::Store`] if it cannot be read or written.
    pub fn open(folder: &Path, key: &PrecomputedKey, pairs_per_step: u64) -> Result<Self, TrainError> {
        atomic::create_folder(folder)?;
        Self::check_place(folder)?;
        let former = folder.join(FORMER_KEY);
        let path = if former.exists() { former } else { folder.join(KEY) };
        if path.exists() {
            let there = read_key(&path)?;
            let here = serde_json::to_value(key).unwrap_or_default();
            let fields = here.as_object().into_iter().flatten();
            let other = fields.filter(|(name, value)| there.get(name.as_str()) != Some(value));
            let other: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
            if !other.is_empty() {
                let (path, differs) = (folder.to_owned(), other.join(", "));
                return Err(TrainError::OtherPrecomputed { path, differs });
            }
        } else {
            json::write(&path, key)?;
        }
        let steps_per_shard = (PAIRS_PER_SHARD / pairs_per_step.max(1)).max(1);
        Ok(Self { folder: folder.to_owned(), steps_per_shard, inverts: key.inverts() })
    }

    /// Whether a folder may hold a precomputed reference: it is new or empty, or holds one already.
    ///
    /// # Errors
    /// [`TrainError::Store`] naming something else that is in it.
    pub fn check_place(folder: &Path) -> Result<(), TrainError> {
        let unreadable = |error| StoreError::io("read", folder, error);
        if [KEY, FORMER_KEY].iter().any(|name| folder.join(name).exists()) || !folder.exists() {
            return Ok(());
        }
        let mut names = fs::read_dir(folder).map_err(unreadable)?.flatten().map(|entry| entry.file_name());
        // Another process of the run may be writing the key at this moment.
        let is_ours = |name: &OsString| {
            name == KEY || atomic::is_unfinished(name) || name.to_string_lossy().starts_with("steps-")
        };
        let Some(foreign) = names.find(|name| !is_ours(name)) else { return Ok(()) };
        let wanted = "an empty folder, or a precomputed reference with its reference.json; choose another reference_dir";
        Err(StoreError::malformed(folder, format!("`{}`", foreign.display()), wanted).into())
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The shards that are missing for these steps, or end too early, each as its steps. Those that are there are compared with
    /// their checksums.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`] naming the first shard that is not what was written.
    pub fn missing(&self, steps: Range<u64>) -> Result<Vec<Range<u64>>, TrainError> {
        let n = self.steps_per_shard;
        let mut missing = Vec::new();
        for shard in steps.start / n..steps.end.div_ceil(n) {
            let wanted = shard * n..steps.end.min((shard + 1) * n);
            let path = self.path(shard);
            let n_there = match path.exists() {
                true => PrecomputedStep::open(path, 0, self.inverts)?.n_steps() as u64,
                false => 0,
            };
            if n_there < wanted.end - wanted.start {
                missing.push(wanted);
            }
        }
        Ok(missing)
    }

    /// Computes and writes the shard of these steps, whose batches `feed` gives.
    ///
    /// # Errors
    /// Whatever `feed` returns; [`TrainError::NonFinite`]; [`TrainError::Run`] if it cannot be written.
    pub fn fill(
        &self,
        steps: Range<u64>,
        engine: &Engine<'_>,
        feed: &mut Feed<'_>,
    ) -> Result<(), TrainError> {
        let mut draft = Draft::default();
        for step in steps.clone() {
            loop {
                match feed.next().unwrap_or(Err(TrainError::EndOfPairs))? {
                    FeedItem::Batch(batch) => {
                        let found = engine.precompute(&batch);
                        draft
                            .push(&batch, &found)
                            .map_err(|pair| TrainError::NonFinite { step, pairs: vec![pair] })?;
                    }
                    // The run that uses the shard names it.
                    FeedItem::Skipped(_) => {}
                    FeedItem::End => break,
                }
            }
            draft.end_step();
        }
        draft.write(&self.path(steps.start / self.steps_per_shard))
    }

    /// What the reference gave in one step.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`] naming the file.
    pub fn step(&self, step: u64) -> Result<PrecomputedStep, TrainError> {
        let within = (step % self.steps_per_shard) as usize;
        PrecomputedStep::open(self.path(step / self.steps_per_shard), within, self.inverts)
    }

    fn path(&self, shard: u64) -> PathBuf {
        self.folder.join(format!("steps-{shard:06}.safetensors"))
    }
}
