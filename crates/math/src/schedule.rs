//! Noise schedules: how much image and how much noise a noisy latent holds at every timestep.
//!
//! Symbols: `z` the clean latent, `e` unit gaussian noise, `x_t` the noisy latent at timestep `t`,
//! `alpha_bar` the signal power of a variance-preserving schedule, `s` the noise level of a flow.

use serde::{Deserialize, Serialize};

use crate::flow::{Density, FlowSchedule, Shift, Spread};
use crate::keyed::Keyed;
use crate::level::Level;

/// The formula behind a variance-preserving schedule, spelled as in diffusers' scheduler configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Square roots of beta evenly spaced: Stable Diffusion 1, 2 and XL.
    ScaledLinear,
    /// Beta evenly spaced: DDPM.
    Linear,
    /// `alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2)`, each beta capped at 0.999; ignores the beta range.
    SquaredcosCapV2,
}

/// What the network is trained to output, spelled as in diffusers' scheduler configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise `e`.
    Epsilon,
    /// The velocity `sqrt(alpha_bar) e - sqrt(1 - alpha_bar) z`.
    VPrediction,
    /// The flow velocity `e - z` on the straight path `x_s = (1 - s) z + s e`.
    #[serde(rename = "flow_prediction")]
    Flow,
}

/// A schedule or a step count that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// Fewer than two timesteps.
    #[error("a schedule needs at least 2 training timesteps, found {0}")]
    TooShort(usize),
    /// Betas outside `0 < start <= end < 1`.
    #[error("betas must satisfy 0 < beta_start <= beta_end < 1, found {start} and {end}")]
    BetaRange {
        /// The first beta as given.
        start: f64,
        /// The last beta as given.
        end: f64,
    },
    /// A flow model asked for a schedule of betas.
    #[error("flow_prediction has no betas: its path is x = (1 - s) z + s e; build it as a flow schedule")]
    FlowHasNoBetas,
    /// A shift that is not a positive finite number.
    #[error("the shift of a flow schedule must be positive and finite, found {0}")]
    Shift(f64),
    /// A shift for a table of betas.
    #[error(
        "a shift, found {0}, moves the noise levels of flow models, and this model has a table of betas: give none"
    )]
    NoShift(f64),
    /// More sampling steps than training timesteps, or none.
    #[error("the number of steps must lie between 1 and {n_train} (the training timesteps), found {n_steps}")]
    StepCount {
        /// Steps asked for.
        n_steps: usize,
        /// Training timesteps of the schedule.
        n_train: usize,
    },
    /// A sampling timestep beyond the end of the schedule.
    #[error(
        "steps_offset {steps_offset} puts timestep {timestep} beyond the schedule's last, {last}: lower the offset or the step count"
    )]
    OffsetBeyondEnd {
        /// The offset as given.
        steps_offset: usize,
        /// The first timestep that does not exist.
        timestep: usize,
        /// The last timestep that does.
        last: usize,
    },
    /// More steps than a sampler of distilled models has.
    #[error(
        "{sampler} has {most} steps, those that models for it are distilled on, found {n_steps}; 4 to 8 are usual"
    )]
    Distilled {
        /// The sampler.
        sampler: &'static str,
        /// Steps asked for.
        n_steps: usize,
        /// Steps there are.
        most: usize,
    },
    /// A sampler that is not defined on a flow's straight path.
    #[error("{sampler} is not defined for flow_prediction: use euler, ddim or dpmpp-2m")]
    NoFlow {
        /// The sampler.
        sampler: &'static str,
    },
    /// A terminal level that is none.
    #[error("shift_terminal must be at least 0 and below 1, found {0}")]
    Terminal(f64),
    /// A path that runs the other way.
    #[error(
        "invert_sigmas counts noise levels backwards, which no model of this program does; remove it or set it to false"
    )]
    Inverted,
    /// A dynamic shift for an image of unknown size.
    #[error("the shift of this schedule depends on the size of the image: give the number of its tokens")]
    Tokens,
    /// A density of training levels that is none.
    #[error("a density of training levels needs {wanted}")]
    Density {
        /// What would do.
        wanted: &'static str,
    },
    /// A fraction of posterior noise for a sampler that has none to choose.
    #[error("eta is a setting of ddim, and {sampler} has none: remove it, or use ddim")]
    Eta {
        /// The sampler.
        sampler: &'static str,
    },
    /// A step of DDIM from pure noise with a network that predicts noise.
    #[error(
        "ddim cannot start at timestep {timestep}, which is pure noise: this network predicts that noise, and an image cannot \
         be found by taking all of it away; use euler or euler-ancestral"
    )]
    NoSignal {
        /// The timestep.
        timestep: usize,
    },
    /// A strength that leaves no step to take, or more than there are.
    #[error(
        "strength {strength} of {n_steps} steps: wanted a number up to 1 that leaves at least one step to take"
    )]
    Strength {
        /// As given.
        strength: f64,
        /// Steps of the whole way.
        n_steps: usize,
    },
}

/// `x_t = clean z + noise e`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forward {
    /// Weight of the clean latent.
    pub clean: f64,
    /// Weight of the noise.
    pub noise: f64,
}

impl Forward {
    /// The variance-preserving mixture with signal power `alpha_bar`: `sqrt(alpha_bar) z + sqrt(1 - alpha_bar) e`.
    pub fn variance_preserving(alpha_bar: f64) -> Self {
        Self { clean: alpha_bar.sqrt(), noise: (1.0 - alpha_bar).sqrt() }
    }

    /// The straight path of flow models at noise level `s` in 0..=1: `(1 - s) z + s e`.
    pub fn flow(s: f64) -> Self {
        Self { clean: 1.0 - s, noise: s }
    }

    /// What a network with this prediction type is asked for at this mixture.
    pub fn target(self, prediction: Prediction) -> Target {
        match prediction {
            Prediction::Epsilon => Target { clean: 0.0, noise: 1.0 },
            Prediction::VPrediction => Target { clean: -self.noise, noise: self.clean },
            Prediction::Flow => Target { clean: -1.0, noise: 1.0 },
        }
    }
}

/// The regression target, `clean z + noise e`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Weight of the clean latent.
    pub clean: f64,
    /// Weight of the noise.
    pub noise: f64,
}

/// The regression target written with the noisy latent instead of the noise, `noisy x_t + clean z`.
///
/// An inverted latent comes without a noise tensor; the noise it implies is `(x_t - a z) / b` with
/// `x_t = a z + b e`, and this is the target of that noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImpliedTarget {
    /// Weight of the noisy latent.
    pub noisy: f64,
    /// Weight of the clean latent.
    pub clean: f64,
}

/// The noise levels of a model, and what it predicts at them: a table with one for each training timestep, or a flow's path, whose levels
/// are any.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    levels: Levels,
    prediction: Prediction,
}

#[derive(Clone, Debug, PartialEq)]
enum Levels {
    AlphaBars(Vec<f64>),
    Flow(FlowSchedule),
}

impl NoiseSchedule {
    /// A variance-preserving schedule of `n_timesteps` levels.
    ///
    /// # Units
    /// `beta_start` and `beta_end` are the noise variances added at the first and at the last timestep.
    ///
    /// # Errors
    /// [`ScheduleError`] for fewer than two timesteps, betas out of range, or [`Prediction::Flow`]
    /// (use [`NoiseSchedule::flow`]).
    ///
    /// Source: DDPM (arXiv 2006.11239); Improved DDPM (arXiv 2102.09672) eq. 17 for the cosine.
    pub fn new(
        kind: BetaSchedule,
        n_timesteps: usize,
        beta_start: f64,
        beta_end: f64,
        prediction: Prediction,
    ) -> Result<Self, ScheduleError> {
        if n_timesteps < 2 {
            return Err(ScheduleError::TooShort(n_timesteps));
        }
        if prediction == Prediction::Flow {
            return Err(ScheduleError::FlowHasNoBetas);
        }
        let ranged = 0.0 < beta_start && beta_start <= beta_end && beta_end < 1.0;
        if kind != BetaSchedule::SquaredcosCapV2 && !ranged {
            return Err(ScheduleError::BetaRange { start: beta_start, end: beta_end });
        }
        let position = |t: usize| t as f64 / (n_timesteps - 1) as f64;
        let between = |start: f64, end: f64, t: usize| start + (end - start) * position(t);
        let beta = |t: usize| match kind {
            BetaSchedule::Linear => between(beta_start, beta_end, t),
            BetaSchedule::ScaledLinear => between(beta_start.sqrt(), beta_end.sqrt(), t).powi(2),
            BetaSchedule::SquaredcosCapV2 => cosine_beta(t, n_timesteps),
        };
        let alpha_bars = (0..n_timesteps)
            .scan(1.0, |alpha_bar, t| {
                *alpha_bar *= 1.0 - beta(t);
                Some(*alpha_bar)
            })
            .collect();
        Ok(Self { levels: Levels::AlphaBars(alpha_bars), prediction })
    }

    /// The straight path of flow models, its training table of `n_timesteps` levels moved by a static shift.
    ///
    /// Entry `t` has noise level `s = shift u / (1 + (shift - 1) u)` with `u = (t + 1) / n_timesteps`, so the
    /// last level is pure noise and no level is quite clean. `shift` 1 is the unshifted path, 3 that of SD3.
    ///
    /// # Errors
    /// [`ScheduleError`] for fewer than two timesteps or a shift that is not positive and finite.
    ///
    /// Source: SD3 (arXiv 2403.03206) eq. 23.
    pub fn flow(n_timesteps: usize, shift: f64) -> Result<Self, ScheduleError> {
        Self::of_flow(FlowSchedule::with_shift(n_timesteps, shift))
    }

    /// The straight path of flow models, with the levels of a diffusers scheduler.
    ///
    /// # Errors
    /// Those of [`FlowSchedule::check`], and [`ScheduleError::Inverted`].
    pub fn of_flow(flow: FlowSchedule) -> Result<Self, ScheduleError> {
        flow.check()?;
        if flow.invert_sigmas {
            return Err(ScheduleError::Inverted);
        }
        Ok(Self { levels: Levels::Flow(flow), prediction: Prediction::Flow })
    }

    /// Where its levels come from, if it is a flow.
    pub fn as_flow(&self) -> Option<&FlowSchedule> {
        match &self.levels {
            Levels::AlphaBars(_) => None,
            Levels::Flow(flow) => Some(flow),
        }
    }

    /// A flow's path, its training table and its samplers' levels moved by a static shift in place of its own.
    ///
    /// # Errors
    /// [`ScheduleError::NoShift`] for a table of betas; those of [`FlowSchedule::check`].
    pub fn with_shift(self, factor: f64) -> Result<Self, ScheduleError> {
        match self.levels {
            Levels::AlphaBars(_) => Err(ScheduleError::NoShift(factor)),
            Levels::Flow(flow) => Self::of_flow(FlowSchedule { shift: Shift::Static(factor), ..flow }),
        }
    }

    /// The same with a flow's levels spread so before they are shifted; a table of betas comes back unchanged.
    #[must_use]
    pub fn with_spread(self, spread: Spread) -> Self {
        match self.levels {
            Levels::Flow(flow) => Self { levels: Levels::Flow(FlowSchedule { spread, ..flow }), ..self },
            Levels::AlphaBars(_) => self,
        }
    }

    /// The same noise levels for a network that predicts something else.
    ///
    /// # Errors
    /// [`ScheduleError::FlowHasNoBetas`] if exactly one of the two is a flow.
    pub fn with_prediction(self, prediction: Prediction) -> Result<Self, ScheduleError> {
        if (self.prediction == Prediction::Flow) != (prediction == Prediction::Flow) {
            return Err(ScheduleError::FlowHasNoBetas);
        }
        Ok(Self { prediction, ..self })
    }

    /// Shifts and scales `sqrt(alpha_bar)` so that the last level is pure noise and the first stays as it was.
    ///
    /// A flow already ends in pure noise and comes back unchanged. With epsilon-prediction training is well defined
    /// (SDXL-Turbo does it), but no sampler step can start at the last level: see [`crate::ddim::step`].
    ///
    /// Source: arXiv 2305.08891, algorithm 1.
    pub fn rescale_zero_terminal_snr(self) -> Self {
        let Levels::AlphaBars(alpha_bars) = &self.levels else { return self };
        let first = alpha_bars[0].sqrt();
        let last = alpha_bars[alpha_bars.len() - 1].sqrt();
        let rescale = |alpha_bar: &f64| ((alpha_bar.sqrt() - last) * (first / (first - last))).powi(2);
        Self { levels: Levels::AlphaBars(alpha_bars.iter().map(rescale).collect()), ..self }
    }

    /// Entry `t` of the training table, the cleanest first.
    ///
    /// # Panics
    /// If `t` is not below [`NoiseSchedule::len`], as for every lookup by timestep.
    pub fn level(&self, t: usize) -> Level {
        match &self.levels {
            Levels::AlphaBars(alpha_bars) => Level::variance_preserving(t as f64, alpha_bars[t]),
            Levels::Flow(flow) => {
                assert!(t < flow.n_timesteps, "timestep {t} of {}", flow.n_timesteps);
                Level::flow(flow.trained(t), flow.n_timesteps)
            }
        }
    }

    /// The level that a fraction `p` of draws lies at or below, where a flow's are drawn from a density; on a table of betas every
    /// level counts the same.
    pub fn quantile(&self, density: Density, p: f64) -> Level {
        match &self.levels {
            Levels::AlphaBars(alpha_bars) => {
                self.level(((p * alpha_bars.len() as f64) as usize).min(alpha_bars.len() - 1))
            }
            Levels::Flow(flow) => Level::flow(density.sigma(p, flow), flow.n_timesteps),
        }
    }

    /// A level by a density: a pure function of the key that the numbers come from.
    pub fn draw(&self, density: Density, keyed: &mut Keyed) -> Level {
        // Half a step up: neither 0 nor 1, whose quantiles are infinite.
        self.quantile(density, keyed.uniform() + 2.0_f64.powi(-54))
    }

    /// Which quarter of the schedule a level lies in, the least noise first: by timestep on a table, by noise level on a flow.
    pub fn quarter(&self, level: Level) -> usize {
        quarter(level.timestep(), self.len())
    }

    /// Signal power at timestep `t`: that of [`NoiseSchedule::level`].
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.level(t).alpha_bar()
    }

    /// Whether the last level is pure noise.
    pub fn ends_in_noise(&self) -> bool {
        self.alpha_bar(self.len() - 1) == 0.0
    }

    /// Signal-to-noise ratio at timestep `t`: `alpha_bar / (1 - alpha_bar)`.
    pub fn snr(&self, t: usize) -> f64 {
        self.level(t).snr()
    }

    /// Number of training timesteps.
    #[expect(clippy::len_without_is_empty, reason = "a schedule has at least two levels, it is never empty")]
    pub fn len(&self) -> usize {
        match &self.levels {
            Levels::AlphaBars(levels) => levels.len(),
            Levels::Flow(flow) => flow.n_timesteps,
        }
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// How the noisy latent at timestep `t` is mixed.
    pub fn forward_coefficients(&self, t: usize) -> Forward {
        self.level(t).mixture()
    }

    /// What the network is asked for at timestep `t`, from the clean latent and the noise.
    pub fn target_coefficients(&self, t: usize) -> Target {
        self.level(t).target(self.prediction)
    }

    /// What the network is asked for at timestep `t`, from the clean latent and a noisy latent: see [`Level::implied_target`].
    pub fn implied_target_coefficients(&self, t: usize) -> ImpliedTarget {
        self.level(t).implied_target(self.prediction)
    }
}

/// Which quarter of `n_timesteps` a timestep lies in, the least noise first.
pub fn quarter(timestep: f64, n_timesteps: usize) -> usize {
    ((4.0 * timestep / n_timesteps.max(1) as f64) as usize).min(3)
}

fn cosine_beta(t: usize, n_timesteps: usize) -> f64 {
    let alpha_bar = |t: usize| {
        let u = t as f64 / n_timesteps as f64;
        ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (1.0 - alpha_bar(t + 1) / alpha_bar(t)).min(0.999)
}
