//! At which noise levels a flow is trained: densities, each as its quantile function.

use serde::{Deserialize, Serialize};

use super::quantile::normal_quantile;
use super::{FlowSchedule, shift};
use crate::dual::sigmoid;
use crate::schedule::ScheduleError;

/// A density of training levels.
///
/// The first three choose an entry of the schedule's training table, which a static shift has moved already; the others choose a
/// level whatever the schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Density {
    /// Every entry of the table alike.
    #[default]
    Uniform,
    /// Around the middle of the table: its position is `sigmoid(mean + std gaussian)`, counted from pure noise.
    ///
    /// Source: SD3 (arXiv 2403.03206) section 3.1; `compute_density_for_timestep_sampling` of diffusers.
    LogitNormal {
        /// Below 0 towards noise.
        mean: f64,
        /// Spread.
        std: f64,
    },
    /// The other density of the same: `1 - u - scale (cos^2(pi u / 2) - 1 + u)`, u uniform.
    Mode {
        /// Above 0 towards the middle of the table, below 0 towards its ends; 1.29 as published.
        scale: f64,
    },
    /// Noise level `sigmoid(scale gaussian)`, shifted by a factor of its own.
    ///
    /// Source: `--timestep_sampling sigmoid`, `shift` and `flux_shift` of kohya's trainers; a factor `e^mu` is the last.
    Sigmoid {
        /// Spread.
        scale: f64,
        /// Factor of the shift; 1 is none.
        shift: f64,
    },
    /// Log-signal-to-noise ratio `mean + std gaussian`.
    Logsnr {
        /// Above 0 towards the clean latent.
        mean: f64,
        /// Spread.
        std: f64,
    },
}

/// Scales of [`Density::Mode`] at which it is a density: beyond them two positions would be one.
const MODE_SCALES: std::ops::RangeInclusive<f64> = -1.0..=1.75;

impl Density {
    /// Whether the numbers can be.
    ///
    /// # Errors
    /// [`ScheduleError::Density`].
    pub fn check(self) -> Result<(), ScheduleError> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let wanted = match self {
            Self::LogitNormal { mean, std } | Self::Logsnr { mean, std }
                if !(mean.is_finite() && positive(std)) =>
            {
                "a finite mean and a positive std"
            }
            Self::Mode { scale } if !MODE_SCALES.contains(&scale) => "a scale from -1 to 1.75",
            Self::Sigmoid { scale, shift } if !(positive(scale) && positive(shift)) => {
                "a positive scale and a positive shift"
            }
            _ => return Ok(()),
        };
        Err(ScheduleError::Density { wanted })
    }

    /// The noise level that a fraction `p` of draws lies at or below, `p` between 0 and 1.
    pub fn sigma(self, p: f64, schedule: &FlowSchedule) -> f64 {
        let n = schedule.n_timesteps;
        // The table's entry at position u, counted from pure noise as diffusers' scripts count.
        let entry = |u: f64| schedule.trained(n - 1 - ((u * n as f64) as usize).min(n - 1));
        match self {
            Self::Uniform => entry(1.0 - p),
            Self::LogitNormal { mean, std } => entry(sigmoid(mean - std * normal_quantile(p))),
            Self::Mode { scale } => entry(mode(p, scale)),
            Self::Sigmoid { scale, shift: factor } => shift(sigmoid(scale * normal_quantile(p)), factor),
            Self::Logsnr { mean, std } => sigmoid(-0.5 * (mean - std * normal_quantile(p))),
        }
    }
}

/// Position in the table, counted from pure noise, of SD3's mode sampling; falls from 1 to 0.
fn mode(u: f64, scale: f64) -> f64 {
    let cosine = (std::f64::consts::FRAC_PI_2 * u).cos();
    1.0 - u - scale * (cosine * cosine - 1.0 + u)
}
