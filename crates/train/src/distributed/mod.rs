//! What several processes of one run say to each other.

use tastemaker_models::nn::Trainable;
use tastemaker_torch::distributed::Group;
use tch::{Device, Tensor};

use crate::TrainError;
use crate::state::Looked;
use crate::step::PairRecord;
use tastemaker_math::objectives::{Label, Outcome};

/// Numbers that are summed up at once: small enough to cost little memory, large enough to keep a network busy.
const BUCKET: usize = 8 << 20;

/// The processes of a run; a single one where there is no group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes<'a>(Option<&'a Group>);

impl<'a> Processes<'a> {
    /// The processes of a group.
    pub fn new(group: Option<&'a Group>) -> Self {
        Self(group)
    }

    /// Number of this process, and how many there are.
    pub fn share(self) -> (usize, usize) {
        self.0.map_or((0, 1), |group| (group.rank(), group.world_size()))
    }

    /// Whether this process writes what is written once.
    pub fn is_first(self) -> bool {
        self.share().0 == 0
    }

    /// Waits until all are here.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn wait(self) -> Result<(), TrainError> {
        Ok(self.0.map_or(Ok(()), Group::barrier)?)
    }

    /// Whether it holds on any of them.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn any(self, holds: bool) -> Result<bool, TrainError> {
        let Some(group) = self.0 else { return Ok(holds) };
        Ok(group.all_gather_bytes(&[u8::from(holds)])?.iter().any(|said| said == &[1]))
    }

    /// Sums up the gradients of all ranks, in the same order on each.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn sum_gradients(self, trainable: &[Trainable]) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        let mut bucket: Vec<Tensor> = Vec::new();
        let mut n_numbers = 0;
        for (i, Trainable { tensor, .. }) in trainable.iter().enumerate() {
            if !tensor.grad().defined() {
                // On this rank it had no part in the step.
                (tensor * 0.0).sum(tch::Kind::Float).backward();
            }
            n_numbers += tensor.numel();
            bucket.push(tensor.grad());
            if n_numbers >= BUCKET || i + 1 == trainable.len() {
                let flat: Vec<Tensor> = bucket.iter().map(|gradient| gradient.reshape([-1])).collect();
                let mut sum = [Tensor::cat(&flat, 0).to_device(Device::Cpu)];
                group.all_reduce_sum(&mut sum)?;
                spread(&sum[0], bucket.drain(..));
                n_numbers = 0;
            }
        }
        Ok(())
    }

    /// Which rank moves each parameter where the optimizer's state is dealt out: runs of about as many numbers for each.
    pub fn owners(self, trainable: &[Trainable]) -> Vec<usize> {
        let (_, n_ranks) = self.share();
        let total: usize = trainable.iter().map(|t| t.tensor.numel()).sum();
        let mut before = 0;
        let owner = |t: &Trainable| {
            let middle = before + t.tensor.numel() / 2;
            before += t.tensor.numel();
            (middle * n_ranks / total.max(1)).min(n_ranks - 1)
        };
        trainable.iter().map(owner).collect()
    }

    /// Gives every rank the parameters that others have moved.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn share_parameters(self, trainable: &[Trainable], owners: &[usize]) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        let owned = owners.iter().zip(trainable).collect::<Vec<_>>();
        for run in owned.chunk_by(|one, next| one.0 == next.0) {
            let owner = *run[0].0;
            for some in buckets(run) {
                let flat: Vec<Tensor> = some.iter().map(|(_, t)| t.tensor.detach().reshape([-1])).collect();
                let mut flat = Tensor::cat(&flat, 0).to_device(Device::Cpu);
                group.broadcast(&mut flat, owner)?;
                if owner != group.rank() {
                    let parts = some.iter().map(|(_, t)| &t.tensor);
                    tch::no_grad(|| spread(&flat, parts.map(Tensor::shallow_clone)));
                }
            }
        }
        Ok(())
    }

    /// The records of all ranks, in the order of ranks.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn gather(self, records: Vec<PairRecord>) -> Result<Vec<PairRecord>, TrainError> {
        let Some(group) = self.0 else { return Ok(records) };
        let said: Vec<f64> = records.iter().flat_map(to_numbers).collect();
        let all = group.all_gather_bytes(&bytes(&said))?;
        Ok(all
            .iter()
            .flat_map(|said| numbers(said).chunks_exact(WIDTH).map(from_numbers).collect::<Vec<_>>())
            .collect())
    }

    /// What all ranks saw of held-out pairs.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn join(self, looked: Looked) -> Result<Looked, TrainError> {
        let Some(group) = self.0 else { return Ok(looked) };
        let said = looked.iter().flat_map(|(&id, &(winner, loser))| [f64::from_bits(id), winner, loser]);
        let all = group.all_gather_bytes(&bytes(&said.collect::<Vec<_>>()))?;
        let pairs = all.iter().flat_map(|said| {
            let pairs = numbers(said);
            pairs.chunks_exact(3).map(|pair| (pair[0].to_bits(), (pair[1], pair[2]))).collect::<Vec<_>>()
        });
        Ok(pairs.collect())
    }
}

/// Cuts into parts of about a bucket each.
fn buckets<'a, 'b>(run: &'a [(&'b usize, &'b Trainable)]) -> Vec<&'a [(&'b usize, &'b Trainable)]> {
    let (mut parts, mut start, mut n_numbers) = (Vec::new(), 0, 0);
    for (i, (_, t)) in run.iter().enumerate() {
        n_numbers += t.tensor.numel();
        if n_numbers >= BUCKET || i + 1 == run.len() {
            parts.push(&run[start..=i]);
            (start, n_numbers) = (i + 1, 0);
        }
    }
    parts
}

/// Copies numbers that lie one behind the other into tensors, one behind the other.
fn spread(flat: &Tensor, tensors: impl Iterator<Item = Tensor>) {
    let mut start = 0;
    for mut tensor in tensors {
        let length = tensor.numel() as i64;
        let part = flat.narrow(0, start, length).reshape(tensor.size());
        tensor.copy_(&part);
        start += length;
    }
}

/// Numbers of a record.
const WIDTH: usize = 12;

/// What a record does not have is said by a NaN of its own, which no measurement gives.
const NONE: u64 = 0x7ff8_dead_0000_0001;

fn to_numbers(record: &PairRecord) -> [f64; WIDTH] {
    let none = f64::from_bits(NONE);
    let Outcome { loss, d_winner, d_loser, logit, residual_factor } = record.outcome;
    let (ref_winner, ref_loser) = record.reference.unwrap_or((none, none));
    [
        f64::from_bits(record.id),
        record.timestep as f64,
        record.winner_error,
        record.loser_error.unwrap_or(none),
        ref_winner,
        ref_loser,
        loss,
        d_winner,
        d_loser,
        logit.unwrap_or(none),
        match record.label {
            None => 0.0,
            Some(Label::Liked) => 1.0,
            Some(Label::Disliked) => -1.0,
        },
        residual_factor.unwrap_or(none),
    ]
}

fn from_numbers(said: &[f64]) -> PairRecord {
    let maybe = |number: f64| (number.to_bits() != NONE).then_some(number);
    PairRecord {
        id: said[0].to_bits(),
        timestep: said[1] as usize,
        winner_error: said[2],
        loser_error: maybe(said[3]),
        reference: maybe(said[4]).map(|winner| (winner, said[5])),
        label: match said[10] {
            0.0 => None,
            sign => Some(if sign > 0.0 { Label::Liked } else { Label::Disliked }),
        },
        outcome: Outcome {
            loss: said[6],
            d_winner: said[7],
            d_loser: said[8],
            logit: maybe(said[9]),
            residual_factor: maybe(said[11]),
        },
    }
}

fn bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_bits().to_le_bytes()).collect()
}

fn numbers(bytes: &[u8]) -> Vec<f64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| f64::from_bits(u64::from_le_bytes(*word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_being_said() {
        for (loser_error, reference) in [(None, None), (Some(f64::INFINITY), Some((0.25, f64::NAN)))] {
            let residual_factor = reference.map(|_| 0.5);
            let outcome =
                Outcome { loss: f64::NAN, d_winner: 1.0, d_loser: -0.0, logit: None, residual_factor };
            let record = PairRecord {
                label: Some(Label::Disliked),
                id: u64::MAX - 7,
                timestep: 999,
                winner_error: 0.5,
                loser_error,
                reference,
                outcome,
            };
            let back = from_numbers(&numbers(&bytes(&to_numbers(&record))));
            assert_eq!(format!("{back:?}"), format!("{record:?}"));
        }
    }
}
