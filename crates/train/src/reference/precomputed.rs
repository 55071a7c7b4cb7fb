//! The precomputed reference: the reference's errors on every draw of a run, computed before its first step.
//!
//! Draws are keyed by seed, pair and repetition, so they are known beforehand, and the reference never changes. Once its errors
//! are on disk no reference has to be in memory, and runs that differ only in method, optimizer or adapter share them. They lie
//! in a folder of shards, each of some steps; a longer run adds to it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::{StoreError, atomic, json};
use tastemaker_torch::tensors::{self, Named, OneByOne};
use tch::{Kind, Tensor};

use crate::TrainError;
use crate::data::{Batch, Feed, FeedItem};
use crate::step::Engine;

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

    /// The key in one word.
    pub fn digest(&self) -> String {
        sha256_bytes(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// Errors of the reference on disk.
#[derive(Debug)]
pub struct PrecomputedReference {
    folder: PathBuf,
    steps_per_shard: u64,
}

/// The reference's errors on the pairs of one step, by identity and repetition.
#[derive(Debug)]
pub struct StepErrors {
    path: PathBuf,
    errors: HashMap<(u64, u64), (f64, f64)>,
}

impl PrecomputedReference {
    /// Opens the errors of a key whose steps have this many pairs, or begins them.
    ///
    /// # Errors
    /// [`TrainError::OtherPrecomputed`] if the folder holds the errors of another key; [`TrainError::Run`] if it cannot be
    /// read or written.
    pub fn open(folder: &Path, key: &PrecomputedKey, pairs_per_step: u64) -> Result<Self, TrainError> {
        atomic::create_folder(folder).map_err(unusable)?;
        let former = folder.join("bank.json");
        let path = if former.exists() { former } else { folder.join("reference.json") };
        if path.exists() {
            let there: Value = json::read(&path).map_err(unusable)?;
            let here = serde_json::to_value(key).unwrap_or_default();
            let fields = here.as_object().into_iter().flatten();
            let other = fields.filter(|(name, value)| there.get(name.as_str()) != Some(value));
            let other: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
            if !other.is_empty() {
                let (path, differs) = (folder.to_owned(), other.join(", "));
                return Err(TrainError::OtherPrecomputed { path, differs });
            }
        } else {
            json::write(&path, key).map_err(unusable)?;
        }
        let steps_per_shard = (PAIRS_PER_SHARD / pairs_per_step).max(1);
        Ok(Self { folder: folder.to_owned(), steps_per_shard })
    }

    /// The shards that are missing for these steps, or end too early, each as its steps.
    pub fn missing(&self, steps: Range<u64>) -> Vec<Range<u64>> {
        let n = self.steps_per_shard;
        let shards =
            (steps.start / n..steps.end.div_ceil(n)).map(|shard| shard * n..steps.end.min((shard + 1) * n));
        shards.filter(|shard| self.n_steps(shard.start / n) < shard.end - shard.start).collect()
    }

    /// Steps that a shard holds, from its first.
    fn n_steps(&self, shard: u64) -> u64 {
        let counts = OneByOne::open(&self.path(shard)).ok().and_then(|file| file.read("counts"));
        counts.map_or(0, |counts| counts.numel() as u64)
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
        let (mut counts, mut keys, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps.clone() {
            let before = errors.len();
            loop {
                match feed.next().unwrap_or(Err(TrainError::EndOfPairs))? {
                    FeedItem::Batch(batch) => {
                        let found = engine.reference_of(&batch);
                        let bad =
                            batch.keys.iter().zip(&found).find(|(_, e)| !e.0.is_finite() || !e.1.is_finite());
                        if let Some((&(pair, _), _)) = bad {
                            return Err(TrainError::NonFinite { step, pairs: vec![pair] });
                        }
                        keys.extend(batch.keys.iter().flat_map(|&(id, draw)| [id as i64, draw as i64]));
                        errors.extend(found.iter().flat_map(|&(winner, loser)| [winner, loser]));
                    }
                    // The run that uses the errors names it.
                    FeedItem::Skipped(_) => {}
                    FeedItem::End => break,
                }
            }
            counts.push((errors.len() - before) as i64 / 2);
        }
        let shard = Named::from([
            ("counts".to_owned(), Tensor::from_slice(&counts)),
            ("keys".to_owned(), Tensor::from_slice(&keys)),
            ("errors".to_owned(), Tensor::from_slice(&errors)),
        ]);
        let metadata = [("sha256".to_owned(), digest(&counts, &keys, &errors))].into();
        Ok(tensors::write(&self.path(steps.start / self.steps_per_shard), &shard, &metadata)?)
    }

    /// The errors of one step.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`] naming the file; [`TrainError::Torch`] if it cannot be read.
    pub fn step(&self, step: u64) -> Result<StepErrors, TrainError> {
        let path = self.path(step / self.steps_per_shard);
        let damaged = || TrainError::DamagedPrecomputed { path: path.clone() };
        let (shard, metadata) = tensors::read_with_metadata(&path)?;
        let part = |name: &str, kind| {
            shard.get(name).filter(|t| t.kind() == kind && t.dim() == 1).ok_or_else(damaged)
        };
        let counts = Vec::<i64>::try_from(part("counts", Kind::Int64)?).map_err(|_| damaged())?;
        let keys = Vec::<i64>::try_from(part("keys", Kind::Int64)?).map_err(|_| damaged())?;
        let errors = Vec::<f64>::try_from(part("errors", Kind::Double)?).map_err(|_| damaged())?;
        let is_whole = metadata.get("sha256") == Some(&digest(&counts, &keys, &errors));
        let within = (step % self.steps_per_shard) as usize;
        let start: i64 = counts.iter().take(within).sum();
        let count = *counts.get(within).filter(|_| is_whole).ok_or_else(damaged)?;
        let rows = keys.chunks_exact(2).zip(errors.chunks_exact(2)).skip(start as usize).take(count as usize);
        let errors = rows.map(|(key, errors)| ((key[0] as u64, key[1] as u64), (errors[0], errors[1])));
        let errors = errors.collect();
        Ok(StepErrors { path, errors })
    }

    fn path(&self, shard: u64) -> PathBuf {
        self.folder.join(format!("steps-{shard:06}.safetensors"))
    }
}

impl StepErrors {
    /// The errors on a batch of this step.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`] if the errors are of other draws.
    pub fn of(&self, batch: &Batch) -> Result<Vec<(f64, f64)>, TrainError> {
        batch
            .keys
            .iter()
            .map(|key| {
                let errors = self.errors.get(key).copied();
                errors.ok_or_else(|| TrainError::DamagedPrecomputed { path: self.path.clone() })
            })
            .collect()
    }
}

fn digest(counts: &[i64], keys: &[i64], errors: &[f64]) -> String {
    let whole = counts.iter().chain(keys).flat_map(|number| number.to_le_bytes());
    let bytes: Vec<u8> = whole.chain(errors.iter().flat_map(|number| number.to_le_bytes())).collect();
    sha256_bytes(&bytes)
}

fn unusable(error: StoreError) -> TrainError {
    TrainError::Run(error.into())
}
