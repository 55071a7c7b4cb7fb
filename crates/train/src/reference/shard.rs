//! Shards of a precomputed reference.
//!
//! Of `s` steps with `n` pairs in all, `r` rows each (winner and loser, or the winner alone):
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `counts` | `[s]` I64 | pairs of each step |
//! | `keys` | `[2 n]` I64 | identity and repetition of each pair |
//! | `errors` | `[2 n]` F64 | the reference's errors on winner and loser |
//! | `shapes` | `[4 n]` I64 | shape `[r, c, h, w]` of each pair's inverted latents, where there are any |
//! | `checks` | `[n]` I64 | XXH3 over them |
//! | `noisy` | flat F32 | the inverted latents, pair after pair |
//!
//! The metadata entry `sha256` is over all but the last, which is compared with `checks` as it is read.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tastemaker_store::checksum::sha256_bytes;
use tastemaker_torch::tensors::{self, Named, OneByOne, upload};
use tch::{Device, Kind, Tensor};
use xxhash_rust::xxh3::xxh3_64;

use crate::TrainError;
use crate::data::Batch;
use crate::step::Precomputed;

/// A shard that is being made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    counts: Vec<i64>,
    keys: Vec<i64>,
    errors: Vec<f64>,
    shapes: Vec<i64>,
    checks: Vec<i64>,
    noisy: Vec<u8>,
    /// Pairs of the steps that are complete.
    n_before: usize,
}

impl Draft {
    /// Appends what the reference gave of a micro-batch.
    ///
    /// # Errors
    /// The first pair of which a number is not finite.
    pub fn push(&mut self, batch: &Batch, found: &Precomputed) -> Result<(), u64> {
        let bad = batch.keys.iter().zip(&found.errors).find(|(_, e)| !e.0.is_finite() || !e.1.is_finite());
        if let Some((&(pair, _), _)) = bad {
            return Err(pair);
        }
        self.keys.extend(batch.keys.iter().flat_map(|&(id, draw)| [id as i64, draw as i64]));
        self.errors.extend(found.errors.iter().flat_map(|&(winner, loser)| [winner, loser]));
        let Some(noisy) = &found.noisy else { return Ok(()) };
        let noisy = noisy.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        for pair in 0..batch.n_pairs() {
            let rows: Vec<Tensor> =
                (0..batch.n_sides()).map(|side| noisy.get((side * batch.n_pairs() + pair) as i64)).collect();
            let rows = Tensor::stack(&rows, 0);
            let mut bytes = vec![0; 4 * rows.numel()];
            rows.copy_data_u8(&mut bytes, rows.numel());
            self.shapes.extend(rows.size());
            self.checks.push(xxh3_64(&bytes) as i64);
            self.noisy.extend(bytes);
        }
        Ok(())
    }

    /// Ends a step.
    pub fn end_step(&mut self) {
        let n_pairs = self.errors.len() / 2;
        self.counts.push((n_pairs - self.n_before) as i64);
        self.n_before = n_pairs;
    }

    /// Writes the shard, atomically.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if it cannot be written.
    pub fn write(self, path: &Path) -> Result<(), TrainError> {
        let Self { counts, keys, errors, shapes, checks, noisy, .. } = self;
        let metadata = [("sha256".to_owned(), digest(&[&counts, &keys, &shapes, &checks], &errors))].into();
        let mut shard = Named::from([
            ("counts".to_owned(), Tensor::from_slice(&counts)),
            ("keys".to_owned(), Tensor::from_slice(&keys)),
            ("errors".to_owned(), Tensor::from_slice(&errors)),
        ]);
        if !shapes.is_empty() {
            let n = noisy.len() as i64 / 4;
            shard.insert("shapes".to_owned(), Tensor::from_slice(&shapes));
            shard.insert("checks".to_owned(), Tensor::from_slice(&checks));
            shard.insert("noisy".to_owned(), Tensor::from_data_size(&noisy, &[n], Kind::Float));
        }
        Ok(tensors::write(path, &shard, &metadata)?)
    }
}

/// What the reference gave in one step, by identity and repetition of pairs.
#[derive(Debug)]
pub struct PrecomputedStep {
    path: PathBuf,
    file: OneByOne,
    n_steps: usize,
    pairs: HashMap<(u64, u64), Pair>,
}

#[derive(Debug, Clone)]
struct Pair {
    errors: (f64, f64),
    /// Inverted latents: shape `[r, c, h, w]`, elements in `noisy`, checksum.
    noisy: Option<([i64; 4], Range<usize>, i64)>,
}

impl PrecomputedStep {
    /// Opens a shard at the step that is `within` steps after its first; none of its pairs if it ends before.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`].
    pub(super) fn open(path: PathBuf, within: usize, inverts: bool) -> Result<Self, TrainError> {
        let damaged = || TrainError::DamagedPrecomputed { path: path.clone() };
        let file = OneByOne::open(&path).map_err(|_| damaged())?;
        let Parts { counts, pairs } = Parts::read(&file, inverts).ok_or_else(damaged)?;
        let (start, count) = (counts.iter().take(within).sum(), counts.get(within).copied().unwrap_or(0));
        let pairs = pairs.into_iter().skip(start).take(count).collect();
        Ok(Self { path, file, n_steps: counts.len(), pairs })
    }

    /// Steps in the shard.
    pub(super) fn n_steps(&self) -> usize {
        self.n_steps
    }

    /// What is known of a batch of this step; latents on its device.
    ///
    /// # Errors
    /// [`TrainError::DamagedPrecomputed`] if the shard is of other draws or not what was written.
    pub fn of(&self, batch: &Batch) -> Result<Precomputed, TrainError> {
        let damaged = || TrainError::DamagedPrecomputed { path: self.path.clone() };
        let pairs: Vec<&Pair> =
            batch.keys.iter().map(|key| self.pairs.get(key)).collect::<Option<_>>().ok_or_else(damaged)?;
        let errors = pairs.iter().map(|pair| pair.errors).collect();
        let latents = batch.latents.size();
        let wanted = [batch.n_sides() as i64, latents[1], latents[2], latents[3]];
        let noisy = pairs.iter().filter_map(|pair| pair.noisy.as_ref()).map(|(shape, part, check)| {
            let bytes = self.file.read_f32("noisy", part.clone()).filter(|_| *shape == wanted)?;
            (xxh3_64(&bytes) as i64 == *check).then(|| Tensor::from_data_size(&bytes, &wanted, Kind::Float))
        });
        let noisy: Vec<Tensor> = noisy.collect::<Option<_>>().ok_or_else(damaged)?;
        // Winners, then losers.
        let noisy = (!noisy.is_empty())
            .then(|| upload(&Tensor::stack(&noisy, 1).flatten(0, 1), batch.latents.device()));
        Ok(Precomputed { errors, noisy })
    }
}

/// A shard's tables.
struct Parts {
    counts: Vec<usize>,
    pairs: Vec<((u64, u64), Pair)>,
}

impl Parts {
    /// Reads them; `None` if they are not what was written, or do not go together.
    fn read(file: &OneByOne, inverts: bool) -> Option<Self> {
        let table = |name: &str| -> Option<Vec<i64>> {
            let tensor =
                file.read(name).filter(|tensor| tensor.kind() == Kind::Int64 && tensor.dim() == 1)?;
            Vec::try_from(tensor).ok()
        };
        let errors =
            file.read("errors").filter(|tensor| tensor.kind() == Kind::Double && tensor.dim() == 1)?;
        let errors = Vec::<f64>::try_from(errors).ok()?;
        let (counts, keys) = (table("counts")?, table("keys")?);
        let (shapes, checks) = match inverts {
            true => (table("shapes")?, table("checks")?),
            false => (Vec::new(), Vec::new()),
        };
        if file.metadata("sha256")? != digest(&[&counts, &keys, &shapes, &checks], &errors) {
            return None;
        }
        let n = errors.len() / 2;
        let counts: Vec<usize> = counts.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
        let n_counted = counts.iter().try_fold(0usize, |sum, &count| sum.checked_add(count))?;
        let are_finite = errors.iter().all(|error| error.is_finite());
        if n_counted != n || errors.len() != 2 * n || keys.len() != 2 * n || !are_finite {
            return None;
        }
        let mut noisy = vec![None; n];
        if inverts {
            if shapes.len() != 4 * n || checks.len() != n {
                return None;
            }
            let mut start = 0usize;
            for ((noisy, shape), &check) in noisy.iter_mut().zip(shapes.chunks_exact(4)).zip(&checks) {
                let shape = <[i64; 4]>::try_from(shape).ok()?;
                let size =
                    shape.iter().try_fold(1usize, |n, &size| n.checked_mul(usize::try_from(size).ok()?))?;
                let end = start.checked_add(size)?;
                *noisy = Some((shape, start..end, check));
                start = end;
            }
        }
        let keys = keys.chunks_exact(2).map(|key| (key[0] as u64, key[1] as u64));
        let errors = errors.chunks_exact(2).map(|errors| (errors[0], errors[1]));
        let pairs = keys.zip(errors).zip(noisy).map(|((key, errors), noisy)| (key, Pair { errors, noisy }));
        Some(Self { counts, pairs: pairs.collect() })
    }
}

fn digest(numbers: &[&[i64]], errors: &[f64]) -> String {
    let [counts, keys, rest @ ..] = numbers else { return String::new() };
    let bytes = |numbers: &[i64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let errors = errors.iter().flat_map(|number| number.to_le_bytes()).collect();
    let rest = rest.iter().map(|numbers| bytes(numbers));
    sha256_bytes(&[bytes(counts), bytes(keys), errors].into_iter().chain(rest).collect::<Vec<_>>().concat())
}
