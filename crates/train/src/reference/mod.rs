//! The model that methods compare with: the one that the run started from, or one that follows the policy.

pub(crate) mod precompute;
mod precomputed;
mod shard;

pub use precomputed::{PrecomputedKey, PrecomputedReference};
pub use shard::PrecomputedStep;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::nn::AdapterSwitch;
use tastemaker_models::pipeline::TextEncoders;

use crate::conditioning::{policy_conditioning, reference_conditioning};
use crate::data::Batch;
use crate::optimizer::{Averaged, Exchange};

/// Where the reference's predictions come from.
pub enum Reference<'a> {
    /// The policy with its adapters off.
    AdapterOff {
        /// The policy.
        policy: &'a dyn Denoiser,
        /// Its switch.
        switch: AdapterSwitch,
    },
    /// A second, frozen network of the same precision.
    Frozen(&'a dyn Denoiser),
    /// The policy with a moving average of its weights.
    Following {
        /// The policy.
        policy: &'a dyn Denoiser,
        /// Its weights and their averages.
        exchange: Exchange,
    },
    /// None: for methods that do not compare.
    None,
}

impl Reference<'_> {
    /// The network that answers, in whatever state its adapters are; `None` without a reference.
    pub(crate) fn network(&self) -> Option<&dyn Denoiser> {
        match self {
            Reference::AdapterOff { policy, .. } | Reference::Following { policy, .. } => Some(*policy),
            Reference::Frozen(denoiser) => Some(*denoiser),
            Reference::None => None,
        }
    }

    /// The conditioning that the reference takes: by trained text encoders as the reference has them.
    pub(crate) fn conditioning(&self, text: Option<&TextEncoders>, batch: &Batch) -> Conditioning {
        match self {
            Reference::Following { exchange, .. } if text.is_some() => {
                let _back_again = Averaged::by(exchange);
                tch::no_grad(|| policy_conditioning(text, batch))
            }
            _ => reference_conditioning(text, batch),
        }
    }

    /// Runs `work` with the reference network; adapters and weights of the policy are as they were afterwards.
    ///
    /// # Panics
    /// Without a reference: set-up gives one to every objective that needs it.
    pub fn with<T>(&self, work: impl FnOnce(&dyn Denoiser) -> T) -> T {
        match self {
            Reference::AdapterOff { policy, switch } => {
                let _on_again = AdaptersOff::new(switch);
                work(*policy)
            }
            Reference::Frozen(denoiser) => work(*denoiser),
            Reference::Following { policy, exchange } => {
                let _back_again = Averaged::by(exchange);
                work(*policy)
            }
            Reference::None => panic!("a method that needs a reference was set up without one"),
        }
    }
}

/// Keeps adapters off while it lives, also through a panic that is caught further up.
pub(crate) struct AdaptersOff<'a>(&'a AdapterSwitch);

impl<'a> AdaptersOff<'a> {
    pub(crate) fn new(switch: &'a AdapterSwitch) -> Self {
        switch.set(false);
        Self(switch)
    }
}

impl Drop for AdaptersOff<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}
