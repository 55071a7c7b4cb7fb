//! Samplers as plans: which timesteps the network is called at, and the linear combination to take at each of them.
//!
//! Latents are variance preserving on a table of betas, `x = sqrt(alpha_bar) z + sqrt(1 - alpha_bar) e`, and on the straight path on a
//! flow, so the network takes them as they are. Solvers that are published in k-diffusion's scale, `z + sigma e` with `sigma = sqrt(1 / alpha_bar - 1)`, are the same
//! steps divided by `sqrt(1 + sigma^2)`.

mod consistency;
mod dpmpp;
mod euler;
mod grids;
mod heun;
mod registry;

pub use registry::{SAMPLERS, Sampler, SamplerEntry, UnknownSampler};

use crate::ddim::{self, Sampling, Step};
use crate::level::Level;
use crate::schedule::{Forward, NoiseSchedule, Prediction, ScheduleError};

/// The clean latent as a linear combination: `sample x + prediction model_output`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Weight of the noisy latent.
    pub sample: f64,
    /// Weight of the model output.
    pub prediction: f64,
}

/// One entry of a plan: call the network at `timestep`, then
/// `x' = step.sample x + step.prediction model_output + step.noise gaussian + previous . estimates_before`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanStep {
    /// What the network is conditioned on; Euler's may lie between two training timesteps, a flow's is any.
    pub timestep: f64,
    /// The weights of this step's own tensors.
    pub step: Step,
    /// Weights of the clean latents that the step before and the one before that estimated; 0 where the solver does not look
    /// back so far.
    pub previous: [f64; 2],
    /// How the clean latent is estimated here, where a later step looks back at it.
    pub estimate: Option<Estimate>,
}

/// A whole way to an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Standard deviation of the noise to start from, where there is no image to start from.
    pub initial: f64,
    /// How a clean latent and noise are mixed where the plan starts from an image.
    pub mixture: Forward,
    /// What to do, in order; never empty. A step of a sampler may be several of these.
    pub steps: Vec<PlanStep>,
}

/// How many steps of a plan are skipped when generating starts from an image: `n - floor(n strength)`.
///
/// # Errors
/// [`ScheduleError::Strength`] unless `strength` lies between 0 and 1 and leaves a step to take.
///
/// Source: `get_timesteps` of diffusers' image-to-image pipelines.
pub fn skipped_steps(n_steps: usize, strength: f64) -> Result<usize, ScheduleError> {
    let taken = (n_steps as f64 * strength) as usize;
    if (0.0..=1.0).contains(&strength) && taken > 0 {
        Ok(n_steps - taken)
    } else {
        Err(ScheduleError::Strength { strength, n_steps })
    }
}

/// [`skipped_steps`] on a schedule; on a flow its pipelines round the other way, `floor(n - n strength)`, so that some step is always
/// left.
///
/// # Errors
/// As [`skipped_steps`].
///
/// Source: `get_timesteps` of the image-to-image pipelines of SD3 and Z-Image in diffusers.
pub fn skipped_steps_on(
    schedule: &NoiseSchedule,
    n_steps: usize,
    strength: f64,
) -> Result<usize, ScheduleError> {
    if schedule.as_flow().is_none() {
        return skipped_steps(n_steps, strength);
    }
    let skipped = (n_steps as f64 - n_steps as f64 * strength).max(0.0) as usize;
    if (0.0..=1.0).contains(&strength) && skipped < n_steps {
        Ok(skipped)
    } else {
        Err(ScheduleError::Strength { strength, n_steps })
    }
}

impl Sampler {
    /// The plan of `sampling.n_steps` steps without its first `skipped`.
    ///
    /// # Errors
    /// [`ScheduleError::StepCount`] and [`ScheduleError::OffsetBeyondEnd`] for what the schedule cannot serve, nothing left
    /// after `skipped` among it; [`ScheduleError::Distilled`] for more steps than LCM and TCD have; [`ScheduleError::NoSignal`] for DDIM from pure
    /// noise; [`ScheduleError::NoFlow`] for LCM and TCD on a flow;
    /// [`ScheduleError::Tokens`] for a flow's dynamic shift without a size; [`ScheduleError::Eta`] for an `eta` that is not 0 where the
    /// sampler has none.
    pub fn plan(
        self,
        schedule: &NoiseSchedule,
        sampling: &Sampling,
        skipped: usize,
    ) -> Result<Plan, ScheduleError> {
        let n_steps = sampling.n_steps;
        if !(1..=schedule.len()).contains(&n_steps) || skipped >= n_steps {
            return Err(ScheduleError::StepCount { n_steps, n_train: schedule.len() });
        }
        if sampling.eta != 0.0 && self != Self::Ddim {
            return Err(ScheduleError::Eta { sampler: self.name() });
        }
        match self {
            Self::Ddim => ddim_plan(schedule, sampling, skipped),
            Self::Euler => euler::plan(schedule, sampling, skipped, 0.0),
            Self::EulerAncestral => euler::plan(schedule, sampling, skipped, 1.0),
            Self::Heun => heun::plan(schedule, sampling, skipped),
            Self::Lcm | Self::Tcd => consistency::plan(self, schedule, sampling, skipped),
            Self::Dpmpp2m | Self::Dpmpp2mKarras => {
                let karras = self == Self::Dpmpp2mKarras || sampling.use_karras_sigmas;
                let levels = match schedule.as_flow() {
                    Some(flow) => grids::dpm_flow(flow, sampling, karras)?,
                    None if karras => grids::dpm_karras(schedule, n_steps),
                    None => grids::dpm(schedule, sampling)?,
                };
                Ok(dpmpp::plan(schedule.prediction(), &levels, sampling.solver_order, skipped))
            }
        }
    }
}

fn ddim_plan(schedule: &NoiseSchedule, sampling: &Sampling, skipped: usize) -> Result<Plan, ScheduleError> {
    let levels = ddim::levels(schedule, sampling)?;
    let levels = &levels[skipped..];
    let prediction = schedule.prediction();
    if prediction == Prediction::Epsilon
        && let Some([from, _]) = levels.iter().find(|[from, _]| from.alpha_bar() == 0.0)
    {
        return Err(ScheduleError::NoSignal { timestep: from.timestep() as usize });
    }
    let entry = |&[from, to]: &[Level; 2]| PlanStep {
        timestep: from.timestep(),
        step: from.step_to(to, prediction, sampling.eta),
        previous: [0.0; 2],
        estimate: None,
    };
    Ok(Plan { initial: 1.0, mixture: levels[0][0].mixture(), steps: levels.iter().map(entry).collect() })
}
