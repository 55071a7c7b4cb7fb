//! Flow models: which noise levels of the straight path `x = (1 - s) z + s e` training knows and sampling visits.
//!
//! Levels are real numbers here, 1 pure noise and 0 the clean latent; a network is conditioned on `1000 s`, not on a position in a
//! table. The numbers are those of `FlowMatchEulerDiscreteScheduler` of diffusers 0.42, in f64 where it mixes f32 and f64.

mod density;
mod quantile;
mod respacing;
mod weighting;

pub use density::Density;
pub use respacing::Respacing;
pub use weighting::Weighting;

use serde::{Deserialize, Serialize};

use crate::ddim::Step;
use crate::schedule::ScheduleError;

/// `s u / (1 + (s - 1) u)`: moves noise levels up if the factor `s` is above 1.
///
/// Source: SD3 (arXiv 2403.03206) eq. 23.
pub fn shift(sigma: f64, factor: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

/// One step between two noise levels, in either direction: Euler's, with a fraction `eta` of the noise drawn anew.
///
/// With `v` the model output, the latent is `z = x - s v` and `e = x + (1 - s) v`; the step mixes them again as
/// `(1 - s') z + s' (sqrt(1 - eta^2) e + eta gaussian)`, so that the total noise is right. `eta` 1 is what diffusers calls stochastic
/// sampling.
pub fn step(from: f64, to: f64, eta: f64) -> Step {
    if eta == 0.0 || from == to {
        return Step { sample: 1.0, prediction: to - from, noise: 0.0 };
    }
    let kept = to * (1.0 - eta * eta).max(0.0).sqrt();
    let clean = 1.0 - to;
    Step { sample: clean + kept, prediction: kept * (1.0 - from) - clean * from, noise: to * eta }
}

/// What a dynamic shift's `mu` means, spelled as in diffusers' scheduler configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShift {
    /// The factor is `e^mu`.
    #[default]
    Exponential,
    /// The factor is `mu`.
    Linear,
}

impl TimeShift {
    /// The factor of [`shift`] that `mu` stands for.
    pub fn factor(self, mu: f64) -> f64 {
        match self {
            Self::Exponential => mu.exp(),
            Self::Linear => mu,
        }
    }
}

/// `mu` of a dynamic shift, from the size of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mu {
    /// A line through two sizes.
    ///
    /// Source: `calculate_shift` of `diffusers.pipelines.flux.pipeline_flux`.
    Linear {
        /// Image tokens of the two sizes.
        tokens: [f64; 2],
        /// `mu` there.
        mu: [f64; 2],
    },
    /// FLUX.2's, fitted to sizes and step counts.
    ///
    /// Source: `compute_empirical_mu` of `diffusers.pipelines.flux2.pipeline_flux2_klein`.
    Empirical,
}

impl Mu {
    /// `mu` for an image of so many tokens in so many steps.
    pub fn at(self, image_tokens: usize, n_steps: usize) -> f64 {
        let tokens = image_tokens as f64;
        match self {
            Self::Linear { tokens: [few, many], mu: [low, high] } => {
                let slope = (high - low) / (many - few);
                tokens * slope + (low - slope * few)
            }
            Self::Empirical => {
                let of_200_steps = 0.000_169_27 * tokens + 0.456_666_66;
                if image_tokens > 4300 {
                    return of_200_steps;
                }
                let of_10_steps = 8.738_095_24e-5 * tokens + 1.898_333_33;
                let slope = (of_200_steps - of_10_steps) / 190.0;
                slope * n_steps as f64 + of_200_steps - 200.0 * slope
            }
        }
    }
}

/// How far levels are moved towards noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shift {
    /// By one factor, in training and sampling (SD3, Z-Image).
    Static(f64),
    /// By the size of the image, in sampling alone: training levels stay even (FLUX).
    Dynamic(TimeShift, Mu),
}

/// What a sampler's levels are before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// `linspace(1, 1 / n, n)`, which the pipelines of Z-Image and FLUX pass to the scheduler.
    Even,
    /// Evenly from the last to the first level of the training table, which is shifted already: the scheduler's own, with which SD3 is
    /// sampled.
    Table,
}

/// The settings of `FlowMatchEulerDiscreteScheduler` that make levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowSchedule {
    /// Number of training timesteps; a network is conditioned on so many times its noise level.
    pub n_timesteps: usize,
    /// How far levels are moved towards noise.
    pub shift: Shift,
    /// Where a sampler's levels come from.
    pub spread: Spread,
    /// A noise level that the sampler's last call is stretched to.
    pub shift_terminal: Option<f64>,
    /// How a sampler's levels lie between its first and its last.
    pub respacing: Respacing,
    /// Whether levels count clean latent for noise: from 0 up to 1 (Mochi).
    pub invert_sigmas: bool,
}

impl FlowSchedule {
    /// A schedule with a static shift and nothing else.
    pub fn with_shift(n_timesteps: usize, factor: f64) -> Self {
        Self {
            n_timesteps,
            shift: Shift::Static(factor),
            spread: Spread::Even,
            shift_terminal: None,
            respacing: Respacing::Shifted,
            invert_sigmas: false,
        }
    }

    /// Whether the numbers can be.
    ///
    /// # Errors
    /// [`ScheduleError`] for fewer than two timesteps, a shift that is not positive and finite, or a terminal level outside `0..1`.
    pub fn check(&self) -> Result<(), ScheduleError> {
        if self.n_timesteps < 2 {
            return Err(ScheduleError::TooShort(self.n_timesteps));
        }
        match self.shift {
            Shift::Static(factor) if !(factor > 0.0 && factor.is_finite()) => {
                return Err(ScheduleError::Shift(factor));
            }
            _ => {}
        }
        match self.shift_terminal {
            Some(terminal) if !(0.0..1.0).contains(&terminal) => Err(ScheduleError::Terminal(terminal)),
            _ => Ok(()),
        }
    }

    /// Noise level of the training table's entry `t`, the cleanest first: [`shift`] of `(t + 1) / n_timesteps`.
    pub fn trained(&self, t: usize) -> f64 {
        let even = (t + 1) as f64 / self.n_timesteps as f64;
        match self.shift {
            Shift::Static(factor) => shift(even, factor),
            Shift::Dynamic(..) => even,
        }
    }

    /// The factor of [`shift`] for an image of so many tokens in so many steps.
    ///
    /// # Errors
    /// [`ScheduleError::Tokens`] if the shift is dynamic and the size unknown.
    pub fn factor(&self, n_steps: usize, image_tokens: Option<usize>) -> Result<f64, ScheduleError> {
        match self.shift {
            Shift::Static(factor) => Ok(factor),
            Shift::Dynamic(kind, mu) => {
                let image_tokens = image_tokens.ok_or(ScheduleError::Tokens)?;
                Ok(kind.factor(mu.at(image_tokens, n_steps)))
            }
        }
    }

    /// The noise levels a sampler calls the network at, and last the one it ends at.
    ///
    /// # Errors
    /// Those of [`FlowSchedule::factor`], and [`ScheduleError::StepCount`] for no step at all.
    ///
    /// Source: `set_timesteps` of `FlowMatchEulerDiscreteScheduler`: shift, terminal stretch, respacing, in this order.
    pub fn sampled(&self, n_steps: usize, image_tokens: Option<usize>) -> Result<Vec<f64>, ScheduleError> {
        if n_steps == 0 {
            return Err(ScheduleError::StepCount { n_steps, n_train: self.n_timesteps });
        }
        let factor = self.factor(n_steps, image_tokens)?;
        let [first, last] = match self.spread {
            Spread::Even => [1.0, 1.0 / n_steps as f64],
            Spread::Table => [self.trained(self.n_timesteps - 1), self.trained(0)],
        };
        let mut sigmas: Vec<f64> = linspace(first, last, n_steps).map(|sigma| shift(sigma, factor)).collect();
        if let Some(terminal) = self.shift_terminal {
            stretch(&mut sigmas, terminal);
        }
        let mut sigmas = self.respacing.between(sigmas);
        if self.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
        }
        sigmas.push(if self.invert_sigmas { 1.0 } else { 0.0 });
        Ok(sigmas)
    }
}

/// `n` numbers from `first` to `last`, both included; one is the first.
pub(crate) fn linspace(first: f64, last: f64, n: usize) -> impl Iterator<Item = f64> {
    let stride = if n > 1 { (last - first) / (n - 1) as f64 } else { 0.0 };
    (0..n).map(move |i| if i > 0 && i + 1 == n { last } else { first + i as f64 * stride })
}

/// Stretches levels away from 1 so that the last is `terminal`; pure noise alone cannot be stretched and stays.
fn stretch(sigmas: &mut [f64], terminal: f64) {
    let last = sigmas.last().copied().unwrap_or(1.0);
    let factor = (1.0 - last) / (1.0 - terminal);
    if factor > 0.0 {
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
    }
}
