//! DDIM-InPO: Diffusion-DPO evaluated on latents that the model itself associates with each image.
//!
//! Instead of adding random noise, each image is carried to the sampled timestep by DDIM inversion. The loss is that of
//! Diffusion-DPO; the regression target is the noise the inverted latent implies,
//! `tau = (x_t - sqrt(alpha_bar) z) / sqrt(1 - alpha_bar)`, different for winner and loser.

use super::corruption::{Corruption, Grid, InversionModel};
use super::entry::{BETA_DPO, DPO_LORA, Entry, LOGIT_BETA, Published};
use super::method::paired;
use super::relative::Link;
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "ddim-inpo",
    summary: "prefer the winner relative to a frozen reference, on DDIM-inverted latents",
    source: "Lu et al. 2025 (arXiv 2503.18454); JaydenLyh/InPO train.py",
    build: paired::<DdimInpo>,
    not_monotone: None,
    detached: None,
    published: &[
        Published {
            form: None,
            full: true,
            flow: false,
            learning_rate: (1.024e-5, 1.024e-5),
            beta: Some((2000.0, 5000.0)),
            source: "JaydenLyh/InPO examples",
        },
        DPO_LORA,
    ],
    shorthands: &[BETA_DPO],
    beta_conventions: LOGIT_BETA,
};

/// `loss = -log sigmoid(-0.5 beta ((Lth_w - Lth_l) - (Lref_w - Lref_l)))` on inverted latents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DdimInpo {
    /// See [`Link::beta`].
    beta: f64,
    /// Network calls of an inversion over the whole schedule.
    steps: usize,
    /// Fraction of DDIM posterior noise added after every inversion step.
    eta: f64,
    /// Which network inverts.
    model: InversionModel,
    /// Which levels the inversion visits.
    grid: Grid,
}

impl Default for DdimInpo {
    fn default() -> Self {
        Self { beta: 2000.0, steps: 10, eta: 0.1, model: InversionModel::Policy, grid: Grid::Exact }
    }
}

impl Settings for DdimInpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        if self.grid == Grid::Release {
            settings::in_range("steps", self.steps, "10 on the release grid", |steps| steps == 10)?;
        }
        settings::at_least_one("steps", self.steps)?;
        settings::fraction("eta", self.eta)
    }
}

impl Link for DdimInpo {
    const PUBLISHED_BETA: &'static str = "2000 to 5000";

    fn beta(&self) -> f64 {
        self.beta
    }

    fn corruption(&self) -> Corruption {
        let Self { steps, eta, model, grid, .. } = *self;
        Corruption::DdimInversion { steps, eta, model, grid }
    }

    fn loss(&self, logit: Dual) -> Dual {
        -logit.log_sigmoid()
    }
}
