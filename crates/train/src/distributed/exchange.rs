//! How the gradients of all ranks become one.

use tastemaker_models::nn::Trainable;
use tastemaker_torch::nccl::{Gradients, Leaves, Library};
use tch::Device;

use super::ProcessGroup;
use crate::TrainError;

/// Gradients and updated parameters, exchanged by Gloo over the host, or by NCCL between devices.
#[derive(Debug, Default)]
pub struct GradientExchange<'a> {
    ranks: ProcessGroup<'a>,
    devices: Option<Gradients>,
    shards: bool,
}

impl<'a> GradientExchange<'a> {
    /// Between these ranks, whose networks are on `device`. Where `shards`, each rank updates its own parameters alone. `library`
    /// stands in for NCCL, also on the host; without it, devices use the one of this process.
    ///
    /// # Errors
    /// [`TrainError::Nccl`] if devices have none; [`TrainError::Torch`] if the ranks do not meet.
    pub fn new(
        ranks: ProcessGroup<'a>,
        trainable: &[Trainable],
        shards: bool,
        device: Device,
        library: Option<&Library>,
    ) -> Result<Self, TrainError> {
        let Some(group) = ranks.0 else { return Ok(Self { ranks, devices: None, shards: false }) };
        let library = match library {
            None if device == Device::Cpu => return Ok(Self { ranks, devices: None, shards }),
            None => Library::of_process().map_err(|why| TrainError::Nccl { why })?,
            Some(library) => library.clone(),
        };
        let leaves = Leaves {
            tensors: trainable.iter().map(|t| t.tensor.shallow_clone()).collect(),
            owners: shards.then(|| ranks.owners(trainable)),
            most: None,
        };
        Ok(Self { ranks, devices: Some(Gradients::begin(&library, group, device, leaves)?), shards })
    }

    /// The ranks.
    pub fn ranks(&self) -> ProcessGroup<'a> {
        self.ranks
    }

    /// Says that the next micro-batch is the last of this rank in its step.
    pub(crate) fn next_is_last(&self) {
        if let Some(gradients) = &self.devices {
            gradients.next_is_last();
        }
    }

    /// Sums up the gradients of all ranks. Between devices that shard them, each rank keeps those of its own parameters.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn sum(&self, trainable: &[Trainable]) -> Result<(), TrainError> {
        match &self.devices {
            Some(gradients) => Ok(gradients.sum()?),
            None => self.ranks.all_reduce_gradients(trainable),
        }
    }

    /// The norm of the whole gradient, of which this rank has a part of norm `own`.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn norm(&self, own: f64) -> Result<f64, TrainError> {
        if self.devices.is_none() || !self.shards {
            return Ok(own);
        }
        let norms = self.ranks.gather_numbers(&[own])?;
        Ok(norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt())
    }

    /// Gives every rank the parameters that others have updated, where each updates its own.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn gather_parameters(&self, trainable: &[Trainable]) -> Result<(), TrainError> {
        match &self.devices {
            _ if !self.shards => Ok(()),
            Some(gradients) => Ok(gradients.gather_parameters()?),
            None => self.ranks.broadcast_parameters(trainable, &self.ranks.owners(trainable)),
        }
    }

    /// Leaves the others, when all are done.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a rank is lost.
    pub(crate) fn leave(self) -> Result<(), TrainError> {
        self.devices.map_or(Ok(()), |gradients| Ok(gradients.leave()?))
    }
}
