//! SmPO: Diffusion-DPO on inverted latents, where each pair pulls by how sure scores are of its label.
//!
//! The logit is scaled by `gamma (2 p - 1)`, `p` being the probability that the winner is really the better one: near-ties
//! pull hardly at all. The released inversion calls the network twice at each level (ReNoise); this one calls it once.

use super::corruption::{Corruption, Grid, InversionModel};
use super::entry::{BETA_DPO, Entry, LOGIT_BETA};
use super::inputs::{Needs, Pair};
use super::method::{Loss, Paired, paired};
use super::relative::{beta_warnings, relative_logit};
use super::settings::{self, Settings, SettingsError};
use crate::number;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "smpo",
    summary: "prefer the winner relative to a frozen reference, weighted by label confidence, on DDIM-inverted latents",
    source: "Lu et al. 2025 (arXiv 2506.02698); JaydenLyh/SmPO train.py",
    build: paired::<Smpo>,
    not_monotone: None,
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// `loss = -log sigmoid(gamma (2 p - 1) logit)` with the logit of Diffusion-DPO on inverted latents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Smpo {
    /// Sharpness of the preference, per unit of mean squared error; multiplied by 0.5 in the logit.
    beta: f64,
    /// Scale of the logit of a pair whose label is certain.
    gamma: f64,
    /// Network calls of an inversion over the whole schedule.
    steps: usize,
    /// Fraction of DDIM posterior noise added after every inversion step.
    eta: f64,
    /// Which network inverts.
    model: InversionModel,
}

impl Default for Smpo {
    fn default() -> Self {
        Self { beta: 2000.0, gamma: 10.0, steps: 5, eta: 0.0, model: InversionModel::Policy }
    }
}

impl Settings for Smpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        settings::positive("gamma", self.gamma)?;
        settings::at_least_one("steps", self.steps)?;
        settings::fraction("eta", self.eta)
    }
}

impl Paired for Smpo {
    fn needs(&self) -> Needs {
        Needs { soft_label: true, ..Needs::REFERENCE }
    }

    fn corruption(&self) -> Corruption {
        let Self { steps, eta, model, .. } = *self;
        Corruption::DdimInversion { steps, eta, model, grid: Grid::Exact }
    }

    fn loss(&self, pair: &Pair) -> Loss {
        let sureness = self.gamma * (2.0 * pair.soft_label - 1.0);
        let logit = relative_logit(pair, self.beta) * sureness;
        Loss { value: -logit.log_sigmoid(), logit: Some(logit.value) }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = beta_warnings(self.beta, "2000 (SD1.5) and 5000 (SDXL)");
        if !(1.0..=50.0).contains(&self.gamma) {
            let gamma = number(self.gamma);
            warnings.push(format!(
                "gamma {gamma} is outside 1..50: it scales the logit of a pair whose label is certain, and published runs use 10"
            ));
        }
        warnings
    }
}
