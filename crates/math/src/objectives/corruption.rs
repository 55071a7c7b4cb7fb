//! How a clean latent becomes the noisy one an objective is evaluated on. Data, not code: the engine carries it out.

use serde::{Deserialize, Serialize};

/// Where noisy latents and regression targets come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// `x_t = clean z + noise e`, with one `e` and one `t` shared by winner and loser, policy and reference.
    Forward,
    /// `x_t` by DDIM inversion of `z`, without guidance and without gradient. Winner and loser share `t`;
    /// the target is that of the noise each inverted latent implies.
    DdimInversion {
        /// Network calls for a whole trajectory; a pair at timestep `t` takes its part of them.
        steps: usize,
        /// Posterior noise added after every inversion step.
        eta: f64,
        /// Which network inverts.
        model: InversionModel,
        /// Which levels the inversion visits.
        grid: Grid,
    },
}

/// The network an inversion is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InversionModel {
    /// The network being trained, as released: inverted latents follow it as it changes.
    #[default]
    Policy,
    /// The frozen reference: inverted latents never change and can be cached.
    Reference,
}

/// The levels an inversion visits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grid {
    /// Ends exactly at the sampled timestep: [`crate::ddim::inversion_exact`].
    #[default]
    Exact,
    /// The released code's levels, up to 99 off: [`crate::ddim::inversion_release`].
    Release,
}
