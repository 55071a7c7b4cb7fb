//! A place on a schedule: the noise in a latent there, and the number the network is conditioned on.

use crate::ddim::{self, Step};
use crate::flow;
use crate::samplers::Estimate;
use crate::schedule::{Forward, ImpliedTarget, Prediction, Target};

/// A noise level with its timestep, on either kind of path.
///
/// Training, corruption, metrics and samplers pass levels on, so that whoever draws or spaces them decides what a timestep is: a
/// whole number of a table of betas, anything up to the number of timesteps on a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    timestep: f64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Signal power of a variance-preserving mixture.
    Power(f64),
    /// Noise level of a flow's straight path.
    Sigma(f64),
}

impl Level {
    /// The variance-preserving mixture of signal power `alpha_bar`.
    pub fn variance_preserving(timestep: f64, alpha_bar: f64) -> Self {
        Self { timestep, place: Place::Power(alpha_bar) }
    }

    /// Noise level `sigma` of a flow, whose network is conditioned on `n_timesteps sigma`.
    pub fn flow(sigma: f64, n_timesteps: usize) -> Self {
        Self { timestep: n_timesteps as f64 * sigma, place: Place::Sigma(sigma) }
    }

    /// The clean latent at the end of this level's path.
    pub fn without_noise(self) -> Self {
        let place = match self.place {
            Place::Power(_) => Place::Power(1.0),
            Place::Sigma(_) => Place::Sigma(0.0),
        };
        Self { timestep: 0.0, place }
    }

    /// What the network is conditioned on: the number of the training timestep on a table of betas, where a sampler's may lie between
    /// two; the number of timesteps times the noise level on a flow.
    pub fn timestep(self) -> f64 {
        self.timestep
    }

    /// Signal power.
    ///
    /// On a flow this is the `alpha_bar` of the variance-preserving mixture with the same signal-to-noise ratio,
    /// `(1 - s)^2 / ((1 - s)^2 + s^2)`.
    pub fn alpha_bar(self) -> f64 {
        match self.place {
            Place::Power(alpha_bar) => alpha_bar,
            Place::Sigma(sigma) => {
                let Forward { clean, noise } = Forward::flow(sigma);
                clean * clean / (clean * clean + noise * noise)
            }
        }
    }

    /// Noise level on a flow's straight path; that of the same signal-to-noise ratio on the other.
    pub fn sigma(self) -> f64 {
        match self.place {
            Place::Power(alpha_bar) => {
                let Forward { clean, noise } = Forward::variance_preserving(alpha_bar);
                noise / (clean + noise)
            }
            Place::Sigma(sigma) => sigma,
        }
    }

    /// Signal-to-noise ratio, `alpha_bar / (1 - alpha_bar)`.
    pub fn snr(self) -> f64 {
        match self.place {
            Place::Power(alpha_bar) => alpha_bar / (1.0 - alpha_bar),
            Place::Sigma(sigma) => ((1.0 - sigma) / sigma).powi(2),
        }
    }

    /// How a noisy latent is mixed here.
    pub fn mixture(self) -> Forward {
        match self.place {
            Place::Power(alpha_bar) => Forward::variance_preserving(alpha_bar),
            Place::Sigma(sigma) => Forward::flow(sigma),
        }
    }

    /// What a network is asked for here, from the clean latent and the noise.
    pub fn target(self, prediction: Prediction) -> Target {
        self.mixture().target(prediction)
    }

    /// What a network is asked for here, from the clean latent and a noisy latent that came without its noise (methods that invert).
    ///
    /// Source: the implied noise of DDIM-InPO, `tau = (x_t - a z) / b` of the mixture `a z + b e`.
    pub fn implied_target(self, prediction: Prediction) -> ImpliedTarget {
        let mixture = self.mixture();
        let target = mixture.target(prediction);
        let noisy = target.noise / mixture.noise;
        ImpliedTarget { noisy, clean: target.clean - noisy * mixture.clean }
    }

    /// One deterministic step, or with a fraction `eta` of fresh noise, to another level of the same path.
    pub fn step_to(self, to: Self, prediction: Prediction, eta: f64) -> Step {
        match (self.place, to.place) {
            (Place::Sigma(from), Place::Sigma(to)) => flow::step(from, to, eta),
            _ => ddim::step(self.alpha_bar(), to.alpha_bar(), prediction, eta),
        }
    }

    /// The clean latent that a model output implies here.
    pub(crate) fn estimate(self, prediction: Prediction) -> Estimate {
        let Forward { clean, noise } = self.mixture();
        match prediction {
            Prediction::Epsilon => Estimate { sample: 1.0 / clean, prediction: -noise / clean },
            Prediction::VPrediction => Estimate { sample: clean, prediction: -noise },
            Prediction::Flow => Estimate { sample: 1.0, prediction: -noise },
        }
    }

    /// Noise over signal, k-diffusion's sigma.
    pub(crate) fn ratio(self) -> f64 {
        match self.place {
            Place::Power(alpha_bar) => ((1.0 - alpha_bar) / alpha_bar).sqrt(),
            Place::Sigma(sigma) => sigma / (1.0 - sigma),
        }
    }

    /// Weight of the clean latent.
    pub(crate) fn clean(self) -> f64 {
        self.mixture().clean
    }

    /// Weight of the noise over that of `from`.
    pub(crate) fn noise_over(self, from: Self) -> f64 {
        match (self.place, from.place) {
            (Place::Sigma(to), Place::Sigma(from)) => to / from,
            _ => ((1.0 - self.alpha_bar()) / (1.0 - from.alpha_bar())).sqrt(),
        }
    }
}
