//! What several processes of one run exchange.

mod exchange;
mod records;

use serde_json::Value;
use tastemaker_models::nn::Trainable;
use tastemaker_run::{Difference, differences as differences_of};
use tastemaker_torch::distributed::Group;
use tastemaker_torch::{devices, nccl};
use tch::{Device, Tensor};

pub use self::exchange::GradientExchange;
use self::records::{RECORD_WIDTH, bytes, from_numbers, numbers, to_numbers};
use crate::TrainError;
use crate::data::Rank;
use crate::step::PairRecord;
use crate::validation::HeldOutErrors;

/// Numbers that are summed up at once: small enough to cost little memory, large enough to keep a network busy.
const BUCKET: usize = 8 << 20;

/// The processes of a run; a single one where there is no group.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessGroup<'a>(Option<&'a Group>);

impl<'a> ProcessGroup<'a> {
    /// The processes of a group.
    pub fn new(group: Option<&'a Group>) -> Self {
        Self(group)
    }

    /// Which of them this process is.
    pub fn rank(self) -> Rank {
        self.0.map_or(Rank::ONLY, |group| Rank { rank: group.rank(), world_size: group.world_size() })
    }

    /// Whether this process writes what is written once.
    pub fn is_first(self) -> bool {
        self.rank().rank == 0
    }

    /// Waits until all are here.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn barrier(self) -> Result<(), TrainError> {
        Ok(self.0.map_or(Ok(()), Group::barrier)?)
    }

    /// Whether it holds on any of them.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn any(self, holds: bool) -> Result<bool, TrainError> {
        let Some(group) = self.0 else { return Ok(holds) };
        Ok(group.all_gather_bytes(&[u8::from(holds)])?.iter().any(|sent| sent == &[1]))
    }

    /// The highest of what they say, 0 for nothing: what one of them knows and all must do.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn highest(self, said: u8) -> Result<u8, TrainError> {
        let Some(group) = self.0 else { return Ok(said) };
        Ok(group.all_gather_bytes(&[said])?.into_iter().flatten().max().unwrap_or(said))
    }

    /// Holds what they will do against each other.
    ///
    /// # Errors
    /// [`TrainError::RanksDiffer`] on each of them, with what differs; [`TrainError::Torch`] if a rank is lost.
    pub fn agree(self, here: &Value) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        let all = group.all_gather_bytes(here.to_string().as_bytes())?;
        let others = all.iter().enumerate().skip(1).map(|(rank, said)| (rank, serde_json::from_slice(said)));
        let first: Value = serde_json::from_slice(&all[0]).unwrap_or_default();
        let mut differences = Vec::new();
        for (rank, other) in others {
            let found = differences_of(&first, &other.unwrap_or_default());
            let shown =
                |Difference { key, there, here }| format!("{key} is {there} there and {here} on rank {rank}");
            differences.extend(found.into_iter().map(shown));
        }
        if differences.is_empty() { Ok(()) } else { Err(TrainError::RanksDiffer { differences }) }
    }

    /// Sums up the gradients of all ranks, in the same order on each.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn all_reduce_gradients(self, trainable: &[Trainable]) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        let mut bucket: Vec<Tensor> = Vec::new();
        let mut n_numbers = 0;
        for (i, Trainable { tensor, .. }) in trainable.iter().enumerate() {
            if !tensor.grad().defined() {
                // It had no part in the step on this rank.
                (tensor * 0.0).sum(tch::Kind::Float).backward();
            }
            n_numbers += tensor.numel();
            bucket.push(tensor.grad());
            if n_numbers >= BUCKET || i + 1 == trainable.len() {
                let flat: Vec<Tensor> = bucket.iter().map(|gradient| gradient.reshape([-1])).collect();
                let mut sum = [Tensor::cat(&flat, 0).to_device(Device::Cpu)];
                group.all_reduce_sum(&mut sum)?;
                copy_flat(&sum[0], bucket.drain(..));
                n_numbers = 0;
            }
        }
        Ok(())
    }

    /// Whether to wait for other ranks only so long from now on: not while one of them may encode or compute the reference for
    /// hours.
    pub(crate) fn limit_waits(self, is_limited: bool) {
        if let Some(group) = self.0 {
            group.limit(is_limited);
        }
    }

    /// Refuses two ranks on one device, which NCCL would wait with for ever.
    ///
    /// # Errors
    /// [`TrainError::SharedDevice`] on each of them; [`TrainError::Torch`] if a rank is lost.
    pub fn check_devices(self, device: Device) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        let own = devices::identity(device)?.unwrap_or_default();
        let all = group.all_gather_bytes(own.as_bytes())?;
        match devices::first_shared(&all) {
            None => Ok(()),
            Some((first, second)) => {
                let device = String::from_utf8_lossy(&all[first]).into_owned();
                Err(TrainError::SharedDevice { first, second, device })
            }
        }
    }

    /// Which rank updates each parameter where the optimizer's state is sharded: about as many numbers for each.
    pub fn owners(self, trainable: &[Trainable]) -> Vec<usize> {
        let sizes: Vec<usize> = trainable.iter().map(|t| t.tensor.numel()).collect();
        nccl::owners(&sizes, self.rank().world_size)
    }

    /// Gives every rank the parameters that others have moved.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub fn broadcast_parameters(self, trainable: &[Trainable], owners: &[usize]) -> Result<(), TrainError> {
        let Some(group) = self.0 else { return Ok(()) };
        for owner in 0..group.world_size() {
            let owned = trainable.iter().zip(owners).filter(|(_, of)| **of == owner);
            let owned: Vec<&Tensor> = owned.map(|(t, _)| &t.tensor).collect();
            for some in buckets(&owned) {
                let flat: Vec<Tensor> = some.iter().map(|tensor| tensor.detach().reshape([-1])).collect();
                let mut flat = Tensor::cat(&flat, 0).to_device(Device::Cpu);
                group.broadcast(&mut flat, owner)?;
                if owner != group.rank() {
                    let parts = some.iter().map(|tensor| tensor.shallow_clone());
                    tch::no_grad(|| copy_flat(&flat, parts));
                }
            }
        }
        Ok(())
    }

    /// The records of all ranks, in the order of ranks.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn gather_records(self, records: Vec<PairRecord>) -> Result<Vec<PairRecord>, TrainError> {
        let Some(group) = self.0 else { return Ok(records) };
        let sent: Vec<f64> = records.iter().flat_map(to_numbers).collect();
        let all = group.all_gather_bytes(&bytes(&sent))?;
        let records = |sent: &Vec<u8>| -> Vec<PairRecord> {
            numbers(sent).chunks_exact(RECORD_WIDTH).map(from_numbers).collect()
        };
        Ok(all.iter().flat_map(records).collect())
    }

    /// The numbers of all ranks, in the order of ranks.
    fn gather_numbers(self, own: &[f64]) -> Result<Vec<f64>, TrainError> {
        let Some(group) = self.0 else { return Ok(own.to_vec()) };
        Ok(group.all_gather_bytes(&bytes(own))?.iter().flat_map(|sent| numbers(sent)).collect())
    }

    /// The errors of all ranks on held-out pairs.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn gather_errors(self, errors: HeldOutErrors) -> Result<HeldOutErrors, TrainError> {
        let Some(group) = self.0 else { return Ok(errors) };
        let sent = errors.iter().flat_map(|(&id, &(winner, loser))| [f64::from_bits(id), winner, loser]);
        let all = group.all_gather_bytes(&bytes(&sent.collect::<Vec<_>>()))?;
        let pairs = |sent: &Vec<u8>| -> Vec<(u64, (f64, f64))> {
            numbers(sent).chunks_exact(3).map(|pair| (pair[0].to_bits(), (pair[1], pair[2]))).collect()
        };
        Ok(all.iter().flat_map(pairs).collect())
    }
}

/// Cuts into parts of about a bucket each.
fn buckets<'a, 'b>(tensors: &'a [&'b Tensor]) -> Vec<&'a [&'b Tensor]> {
    let (mut parts, mut start, mut n_numbers) = (Vec::new(), 0, 0);
    for (i, tensor) in tensors.iter().enumerate() {
        n_numbers += tensor.numel();
        if n_numbers >= BUCKET || i + 1 == tensors.len() {
            parts.push(&tensors[start..=i]);
            (start, n_numbers) = (i + 1, 0);
        }
    }
    parts
}

/// Copies numbers that lie one behind the other into tensors, one behind the other.
fn copy_flat(flat: &Tensor, tensors: impl Iterator<Item = Tensor>) {
    let mut start = 0;
    for mut tensor in tensors {
        let length = tensor.numel() as i64;
        let part = flat.narrow(0, start, length).reshape(tensor.size());
        tensor.copy_(&part);
        start += length;
    }
}
