//! DDIM as scalars: every step is a linear combination of the latent, the model output and fresh noise.
//!
//! Going to a cleaner level generates; going to a noisier one inverts. Both are [`step`].

use crate::flow;
use crate::level::Level;
use crate::objectives::Grid;
use crate::schedule::{Forward, NoiseSchedule, Prediction, ScheduleError};
use serde::{Deserialize, Serialize};

/// `x' = sample x + prediction model_output + noise gaussian`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Weight of the latent the step starts from.
    pub sample: f64,
    /// Weight of the model output at that latent.
    pub prediction: f64,
    /// Weight of fresh unit gaussian noise; 0 when `eta` is 0.
    pub noise: f64,
}

/// One DDIM step between two signal powers, in either direction.
///
/// The model output gives the clean latent and the noise; the step mixes them again at the level it goes to.
/// With `eta > 0` the posterior standard deviation `sigma = eta sqrt(v)`,
/// `v = (1 - cleaner) / (1 - noisier) (1 - noisier / cleaner)`, joins in:
/// towards the image the direction shrinks to `sqrt(1 - alpha_bar_to - sigma^2)` so that the total noise is right
/// (arXiv 2010.02502, eq. 12 and 16); towards noise `sigma` is added on top of the deterministic step, as DDIM-InPO
/// was released (its train.py), so the latent gains a little more noise than its level says.
///
/// For [`Prediction::Flow`] the powers are those of [`NoiseSchedule::alpha_bar`] and the latent lives on the straight
/// path: the step is [`flow::step`]. Between two [`Level`]s, [`Level::step_to`] takes whichever step their path has.
///
/// Every step is finite except an epsilon step that starts at `alpha_bar_from = 0` and goes elsewhere: pure noise
/// says nothing about the image there, and the weights come out infinite. v and flow predictions have no such gap.
pub fn step(alpha_bar_from: f64, alpha_bar_to: f64, prediction: Prediction, eta: f64) -> Step {
    if alpha_bar_from == alpha_bar_to {
        return Step { sample: 1.0, prediction: 0.0, noise: 0.0 };
    }
    let sigma = if eta == 0.0 { 0.0 } else { eta * posterior_variance(alpha_bar_from, alpha_bar_to).sqrt() };
    let towards_image = alpha_bar_to > alpha_bar_from;
    let direction_power = 1.0 - alpha_bar_to - if towards_image { sigma * sigma } else { 0.0 };
    let from = Forward::variance_preserving(alpha_bar_from);
    let to = Forward { clean: alpha_bar_to.sqrt(), noise: direction_power.max(0.0).sqrt() };
    match prediction {
        // z = (x - b m) / a, e = m
        Prediction::Epsilon => {
            let sample = to.clean / from.clean;
            Step { sample, prediction: to.noise - sample * from.noise, noise: sigma }
        }
        // z = a x - b m, e = b x + a m
        Prediction::VPrediction => Step {
            sample: to.clean * from.clean + to.noise * from.noise,
            prediction: to.noise * from.clean - to.clean * from.noise,
            noise: sigma,
        },
        Prediction::Flow => {
            let level = |mixture: Forward| mixture.noise / (mixture.clean + mixture.noise);
            flow::step(level(from), level(Forward::variance_preserving(alpha_bar_to)), eta)
        }
    }
}

/// The DDIM posterior variance of the interval between two signal powers, given in either order.
///
/// Source: arXiv 2010.02502, eq. 16 with eta 1.
pub fn posterior_variance(one: f64, other: f64) -> f64 {
    let (noisier, cleaner) = if one < other { (one, other) } else { (other, one) };
    if noisier == cleaner {
        return 0.0;
    }
    (1.0 - cleaner) / (1.0 - noisier) * (1.0 - noisier / cleaner)
}

/// How sampling timesteps are spread over the training timesteps, spelled as in diffusers' scheduler configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of `n_train / n_steps` (integer division) plus the offset: never reaches the last timestep.
    Leading,
    /// From the last timestep downwards: what zero-terminal-SNR models need.
    Trailing,
    /// Evenly from the last timestep to the first, both included.
    Linspace,
}

/// The sampling timesteps, descending, as diffusers' `DDIMScheduler.set_timesteps` gives them.
///
/// `steps_offset` applies to [`Spacing::Leading`] alone. Ties round to even, as numpy does. One difference: for some
/// counts (61 of 1000 is the smallest) diffusers' trailing spacing rounds itself into an extra timestep, -1; here
/// there are always `n_steps`.
///
/// # Panics
/// Unless `1 <= n_steps <= n_train`; [`plan`] checks and returns an error instead.
pub fn timesteps(spacing: Spacing, n_train: usize, n_steps: usize, steps_offset: usize) -> Vec<usize> {
    assert!((1..=n_train).contains(&n_steps), "{n_steps} steps over {n_train} timesteps");
    match spacing {
        Spacing::Leading => {
            let stride = n_train / n_steps;
            (0..n_steps).rev().map(|i| i * stride + steps_offset).collect()
        }
        Spacing::Trailing => {
            let start = n_train as f64;
            // numpy.arange spaces its values by the difference of the first two, not by the step it was given
            let stride = start - (start - start / n_steps as f64);
            (0..n_steps).map(|i| (start - i as f64 * stride).round_ties_even() as usize - 1).collect()
        }
        Spacing::Linspace if n_steps == 1 => vec![0],
        Spacing::Linspace => {
            let last = n_train - 1;
            let stride = last as f64 / (n_steps - 1) as f64;
            let value = |i: usize| (i as f64 * stride).round_ties_even() as usize;
            (0..n_steps).rev().map(|i| if i == n_steps - 1 { last } else { value(i) }).collect()
        }
    }
}

/// The signal power a sampling step at `timestep` goes to.
///
/// diffusers' rule: the previous level is `timestep - n_train / n_steps` (integer division), whatever the spacing and
/// whatever the next timestep in the list. Below zero the step goes to `final_alpha`: 1 with `set_alpha_to_one`,
/// `alpha_bar[0]` without (Stable Diffusion's configs).
pub fn previous_alpha_bar(
    schedule: &NoiseSchedule,
    timestep: usize,
    n_steps: usize,
    set_alpha_to_one: bool,
) -> f64 {
    match timestep.checked_sub(schedule.len() / n_steps) {
        Some(previous) => schedule.alpha_bar(previous),
        None if set_alpha_to_one => 1.0,
        None => schedule.alpha_bar(0),
    }
}

/// What a sampler needs beside the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// How the timesteps are spread.
    pub spacing: Spacing,
    /// How many there are.
    pub n_steps: usize,
    /// Added to every timestep of leading spacing (1 in Stable Diffusion's configs).
    pub steps_offset: usize,
    /// Whether the last step goes to a perfectly clean latent.
    pub set_alpha_to_one: bool,
    /// Fraction of posterior noise: 0 is deterministic, 1 is ancestral sampling.
    pub eta: f64,
    /// Whether Euler and DPM++ take Karras' noise levels.
    pub use_karras_sigmas: bool,
    /// Order of DPM++: 1, 2 or 3.
    pub solver_order: usize,
    /// Tokens of the image, which a flow's dynamic shift depends on.
    #[serde(default)]
    pub image_tokens: Option<usize>,
}

impl Default for Sampling {
    /// 50 steps of DDIM as its class in diffusers has them.
    fn default() -> Self {
        Self {
            spacing: Spacing::Leading,
            n_steps: 50,
            steps_offset: 0,
            set_alpha_to_one: true,
            eta: 0.0,
            use_karras_sigmas: false,
            solver_order: 2,
            image_tokens: None,
        }
    }
}

impl Sampling {
    /// The noise levels a sampler visits on a flow, from pure noise to the clean latent it ends at; `None` where the schedule is none.
    ///
    /// # Errors
    /// Those of [`flow::FlowSchedule::sampled`].
    pub(crate) fn flow_levels(&self, schedule: &NoiseSchedule) -> Result<Option<Vec<Level>>, ScheduleError> {
        let Some(flow) = schedule.as_flow() else { return Ok(None) };
        let sigmas = flow.sampled(self.n_steps, self.image_tokens)?;
        Ok(Some(sigmas.into_iter().map(|sigma| Level::flow(sigma, flow.n_timesteps)).collect()))
    }
}

/// One entry of a sampler's plan: call the network at `timestep`, then take `step`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingStep {
    /// What the network is conditioned on.
    pub timestep: f64,
    /// The linear combination to take.
    pub step: Step,
}

/// The whole way from noise to image.
///
/// # Errors
/// [`ScheduleError::StepCount`] and [`ScheduleError::OffsetBeyondEnd`].
pub fn plan(schedule: &NoiseSchedule, sampling: &Sampling) -> Result<Vec<SamplingStep>, ScheduleError> {
    let entry = |[from, to]: [Level; 2]| SamplingStep {
        timestep: from.timestep(),
        step: from.step_to(to, schedule.prediction(), sampling.eta),
    };
    Ok(levels(schedule, sampling)?.into_iter().map(entry).collect())
}

/// The levels that each step of [`plan`] comes from and goes to. A flow has its own; [`Spacing`] spreads those of a table.
pub(crate) fn levels(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
) -> Result<Vec<[Level; 2]>, ScheduleError> {
    let Sampling { spacing, n_steps, steps_offset, set_alpha_to_one, .. } = *sampling;
    let n_train = schedule.len();
    if !(1..=n_train).contains(&n_steps) {
        return Err(ScheduleError::StepCount { n_steps, n_train });
    }
    if let Some(levels) = sampling.flow_levels(schedule)? {
        return Ok(levels.windows(2).map(|two| [two[0], two[1]]).collect());
    }
    let timesteps = timesteps(spacing, n_train, n_steps, steps_offset);
    if let Some(&timestep) = timesteps.iter().find(|&&timestep| timestep >= n_train) {
        return Err(ScheduleError::OffsetBeyondEnd { steps_offset, timestep, last: n_train - 1 });
    }
    let at = |timestep: usize| {
        let to = previous_alpha_bar(schedule, timestep, n_steps, set_alpha_to_one);
        let from = schedule.level(timestep);
        [from, Level::variance_preserving(from.timestep(), to)]
    };
    Ok(timesteps.into_iter().map(at).collect())
}

/// One step of [`inverse_plan`]: call the network at `timestep`, then take one of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseStep {
    /// What the network is conditioned on.
    pub timestep: f64,
    /// For the network's output at the latent the step starts from.
    pub guess: Step,
    /// For its output at the latent the step ends at: exactly undoes the step of [`plan`] at this timestep. The same as `guess`
    /// where the network predicts noise or flow.
    pub undo: Step,
}

/// The way of [`plan`] backwards, from image to noise. `eta` does not count.
///
/// The network is conditioned on the level a step goes *to*, because that is where `plan` will call it; [`inversion_exact`] takes
/// the level a step comes from.
///
/// # Errors
/// As [`plan`].
///
/// Source: `DDIMInverseScheduler` of diffusers, which takes `guess`.
pub fn inverse_plan(
    schedule: &NoiseSchedule,
    sampling: &Sampling,
) -> Result<Vec<InverseStep>, ScheduleError> {
    let back = |[from, to]: [Level; 2]| {
        let Step { sample, prediction, .. } = from.step_to(to, schedule.prediction(), 0.0);
        InverseStep {
            timestep: from.timestep(),
            guess: to.step_to(from, schedule.prediction(), 0.0),
            undo: Step { sample: 1.0 / sample, prediction: -prediction / sample, noise: 0.0 },
        }
    };
    Ok(levels(schedule, sampling)?.into_iter().rev().map(back).collect())
}

/// One step of an inversion: call the network with `model_timestep`, then move between the two levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InversionStep {
    /// The timestep the network is conditioned on; -99 in the first step of [`inversion_release`].
    pub model_timestep: i64,
    /// The level the latent is at.
    pub from_level: usize,
    /// The noisier level it goes to.
    pub to_level: usize,
}

impl InversionStep {
    /// The linear combination of this step, with the fraction `eta` of DDIM posterior noise on top.
    pub fn coefficients(&self, schedule: &NoiseSchedule, eta: f64) -> Step {
        let from = schedule.alpha_bar(self.from_level);
        let to = schedule.alpha_bar(self.to_level);
        step(from, to, schedule.prediction(), eta)
    }
}

/// Inversion to exactly timestep `t`, with a density of `n_steps` over the whole schedule.
///
/// `n = ceil(t n_steps / n_train)` steps through the levels `floor(j t / n)`, `j = 0..=n`; the network is called with
/// the level it starts from. The clean latent counts as level 0. `t = 0` needs no step.
pub fn inversion_exact(t: usize, n_steps: usize, n_train: usize) -> Vec<InversionStep> {
    let n = (t * n_steps).div_ceil(n_train);
    let level = |j: usize| j * t / n;
    (0..n)
        .map(|j| InversionStep {
            model_timestep: level(j) as i64,
            from_level: level(j),
            to_level: level(j + 1),
        })
        .collect()
}

/// Inversion towards timestep `t` as DDIM-InPO's released code does it under the diffusers it pins (0.20).
///
/// Its grid is -99, 1, 101, ..., 801 of 1000 timesteps. Every grid time below `t` moves the latent from its own level
/// to the one 100 above, so the latent ends at level `ceil((t - 1) / 100) 100 + 1`, at most 901: up to 98 below
/// or 99 above `t`. The first step starts at level 0 and calls the network with timestep -99, literally.
pub fn inversion_release(t: usize) -> Vec<InversionStep> {
    const STRIDE: usize = 100;
    (0..10)
        .map(|k| InversionStep {
            model_timestep: (STRIDE * k) as i64 - 99,
            from_level: if k == 0 { 0 } else { STRIDE * (k - 1) + 1 },
            to_level: STRIDE * k + 1,
        })
        .take_while(|step| step.model_timestep < t as i64)
        .collect()
}

/// The inversion of either grid over a table of betas.
///
/// # Panics
/// If the release grid, defined on 1000 timesteps alone, is asked for on another schedule.
pub fn inversion(grid: Grid, t: usize, n_steps: usize, n_train: usize) -> Vec<InversionStep> {
    match grid {
        Grid::Exact => inversion_exact(t, n_steps, n_train),
        Grid::Release => {
            assert!(n_train == 1000, "the release grid is defined on 1000 timesteps, found {n_train}");
            inversion_release(t)
        }
    }
}

/// The way from a clean latent to `level`, ready to be followed: where the network is called, and what is done with its output.
///
/// On a flow, noise levels rise evenly from 0 in `ceil(s n_steps)` steps. The network is called at the level a step starts from; at the
/// first, where there is nothing to call it with, at the level it goes to.
///
/// # Panics
/// As [`inversion`].
pub fn inversion_to(
    schedule: &NoiseSchedule,
    grid: Grid,
    level: Level,
    n_steps: usize,
    eta: f64,
) -> Vec<SamplingStep> {
    let Some(flow) = schedule.as_flow() else {
        let steps = inversion(grid, level.timestep() as usize, n_steps, schedule.len());
        let entry = |step: InversionStep| SamplingStep {
            timestep: step.model_timestep as f64,
            step: step.coefficients(schedule, eta),
        };
        return steps.into_iter().map(entry).collect();
    };
    let n = (level.sigma() * n_steps as f64).ceil().max(1.0) as usize;
    let at = |k: usize| Level::flow(k as f64 / n as f64 * level.sigma(), flow.n_timesteps);
    (0..n)
        .map(|k| SamplingStep {
            timestep: at(k.max(1)).timestep(),
            step: at(k).step_to(at(k + 1), Prediction::Flow, eta),
        })
        .collect()
}
