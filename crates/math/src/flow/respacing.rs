//! How a sampler's noise levels lie between its first and its last.

use serde::{Deserialize, Serialize};

use super::linspace;
use super::quantile::beta_quantile;

/// Levels between the ends of a sampler's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Respacing {
    /// As they were shifted.
    #[default]
    Shifted,
    /// `(smax^(1/7) + u (smin^(1/7) - smax^(1/7)))^7`, u from 0 to 1.
    ///
    /// Source: arXiv 2206.00364, eq. 5.
    Karras,
    /// Evenly in the logarithm.
    Exponential,
    /// At quantiles of a beta distribution, close together at both ends.
    ///
    /// Source: arXiv 2407.12173.
    Beta,
}

impl Respacing {
    /// As many levels between the same ends.
    pub(crate) fn between(self, sigmas: Vec<f64>) -> Vec<f64> {
        let (n, Some((&most, &least))) = (sigmas.len(), sigmas.first().zip(sigmas.last())) else {
            return sigmas;
        };
        match self {
            Self::Shifted => sigmas,
            Self::Karras => {
                const RHO: f64 = 7.0;
                let (most, least) = (most.powf(1.0 / RHO), least.powf(1.0 / RHO));
                linspace(0.0, 1.0, n).map(|u| (most + u * (least - most)).powf(RHO)).collect()
            }
            Self::Exponential => linspace(most.ln(), least.ln(), n).map(f64::exp).collect(),
            Self::Beta => {
                linspace(0.0, 1.0, n).map(|u| least + beta_quantile(1.0 - u, BETA) * (most - least)).collect()
            }
        }
    }
}

/// Both parameters of the beta distribution, as diffusers has them.
const BETA: f64 = 0.6;
