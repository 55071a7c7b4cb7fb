//! Timesteps and noise levels that solvers visit.
//!
//! Source: `set_timesteps` of `EulerDiscreteScheduler` and `DPMSolverMultistepScheduler` in
//! `huggingface/diffusers:src/diffusers/schedulers/`.

use crate::ddim::{Sampling, Spacing, timesteps};
use crate::flow::{self, FlowSchedule, Respacing};
use crate::level::Level;
use crate::schedule::{NoiseSchedule, ScheduleError};

/// What stands for a signal power of exactly 0, so that no sigma is infinite; diffusers takes the same.
const FAINTEST: f64 = 1.0 / (1u64 << 24) as f64;

/// Noise over signal, k-diffusion's sigma.
fn sigma(alpha_bar: f64) -> f64 {
    ((1.0 - alpha_bar) / alpha_bar).sqrt()
}

fn alpha_bar_of(sigma: f64) -> f64 {
    1.0 / (1.0 + sigma * sigma)
}

/// Signal power at a training timestep.
pub(super) fn power(schedule: &NoiseSchedule, t: usize) -> f64 {
    let alpha_bar = schedule.alpha_bar(t);
    if alpha_bar == 0.0 { FAINTEST } else { alpha_bar }
}

/// Sigmas of two neighboring timesteps, mixed in proportion.
fn between(schedule: &NoiseSchedule, t: f64) -> f64 {
    if t.fract() == 0.0 {
        return power(schedule, t as usize);
    }
    let at = |t: f64| sigma(power(schedule, t as usize));
    alpha_bar_of(at(t.floor()) + t.fract() * (at(t.ceil()) - at(t.floor())))
}

fn within(schedule: &NoiseSchedule, sampling: &Sampling, found: &[f64]) -> Result<(), ScheduleError> {
    let last = schedule.len() - 1;
    match found.iter().find(|&&t| t > last as f64) {
        None => Ok(()),
        Some(&t) => Err(ScheduleError::OffsetBeyondEnd {
            steps_offset: sampling.steps_offset,
            timestep: t as usize,
            last,
        }),
    }
}

/// Euler's: linspace is not rounded, the others are DDIM's.
pub(super) fn euler(schedule: &NoiseSchedule, sampling: &Sampling) -> Result<Vec<Level>, ScheduleError> {
    let Sampling { spacing, n_steps, steps_offset, .. } = *sampling;
    let found: Vec<f64> = if spacing == Spacing::Linspace && n_steps > 1 {
        let stride = (schedule.len() - 1) as f64 / (n_steps - 1) as f64;
        // The network's clock is f32.
        let value = |i: usize| f64::from((i as f64 * stride) as f32);
        (0..n_steps)
            .rev()
            .map(|i| if i + 1 == n_steps { (schedule.len() - 1) as f64 } else { value(i) })
            .collect()
    } else {
        whole(timesteps(spacing, schedule.len(), n_steps, steps_offset))
    };
    within(schedule, sampling, &found)?;
    Ok(found.into_iter().map(|t| Level::variance_preserving(t, between(schedule, t))).collect())
}

/// DPM-Solver's: linspace and leading cut the schedule into one piece more and skip the last.
pub(super) fn dpm(schedule: &NoiseSchedule, sampling: &Sampling) -> Result<Vec<Level>, ScheduleError> {
    let Sampling { spacing, n_steps, steps_offset, .. } = *sampling;
    let n_points = n_steps + usize::from(spacing != Spacing::Trailing);
    if n_points > schedule.len() {
        return Err(ScheduleError::StepCount { n_steps, n_train: schedule.len() - 1 });
    }
    let found = whole(timesteps(spacing, schedule.len(), n_points, steps_offset));
    let found = &found[..n_steps];
    within(schedule, sampling, found)?;
    Ok(found.iter().map(|&t| Level::variance_preserving(t, power(schedule, t as usize))).collect())
}

/// DPM-Solver's on a flow: one piece more from 0 up to just below pure noise, shifted, and the first skipped. Karras' lie between the same
/// ends.
pub(super) fn dpm_flow(
    flow: &FlowSchedule,
    sampling: &Sampling,
    karras: bool,
) -> Result<Vec<Level>, ScheduleError> {
    let Sampling { n_steps, image_tokens, .. } = *sampling;
    let factor = flow.factor(n_steps, image_tokens)?;
    let most = 1.0 - 1.0 / flow.n_timesteps as f64;
    let even = flow::linspace(0.0, most, n_steps + 1).skip(1).map(|sigma| flow::shift(sigma, factor));
    let mut sigmas: Vec<f64> = even.collect();
    sigmas.reverse();
    let respacing = if karras { Respacing::Karras } else { Respacing::Shifted };
    Ok(respacing.between(sigmas).into_iter().map(|sigma| Level::flow(sigma, flow.n_timesteps)).collect())
}

/// DPM-Solver's with Karras' levels between the schedule's ends; the network is conditioned on whole timesteps.
pub(super) fn dpm_karras(schedule: &NoiseSchedule, n_steps: usize) -> Vec<Level> {
    let logs = log_sigmas(schedule);
    let ends = [logs[logs.len() - 1], logs[0]].map(f64::exp);
    karras(&logs, ends, n_steps, f64::round_ties_even).collect()
}

/// Euler's with Karras' levels between its own ends; the network's clock, f32, may lie between two timesteps.
pub(super) fn euler_karras(schedule: &NoiseSchedule, levels: &[Level]) -> Vec<Level> {
    let logs = log_sigmas(schedule);
    let ends = [levels[0], levels[levels.len() - 1]].map(Level::ratio);
    karras(&logs, ends, levels.len(), |timestep| f64::from(timestep as f32)).collect()
}

/// Karras' levels, `(smax^(1/7) + u (smin^(1/7) - smax^(1/7)))^7`, u from 0 to 1; timesteps are counted along the logarithm of sigma and
/// rounded by `clock`.
///
/// Source: arXiv 2206.00364, eq. 5.
fn karras(
    logs: &[f64],
    [most, least]: [f64; 2],
    n_steps: usize,
    clock: impl Fn(f64) -> f64,
) -> impl Iterator<Item = Level> {
    const RHO: f64 = 7.0;
    let (most, least) = (most.powf(1.0 / RHO), least.powf(1.0 / RHO));
    (0..n_steps).map(move |i| {
        let fraction = if n_steps > 1 { i as f64 / (n_steps - 1) as f64 } else { 0.0 };
        let sigma = (most + fraction * (least - most)).powf(RHO);
        Level::variance_preserving(clock(timestep_of(logs, sigma.ln())), alpha_bar_of(sigma))
    })
}

fn log_sigmas(schedule: &NoiseSchedule) -> Vec<f64> {
    (0..schedule.len()).map(|t| sigma(power(schedule, t)).ln()).collect()
}

/// The timestep of a logarithm of sigma, of a table that rises.
fn timestep_of(logs: &[f64], log: f64) -> f64 {
    let low = logs.partition_point(|&entry| entry <= log).saturating_sub(1).min(logs.len() - 2);
    let fraction = ((log - logs[low]) / (logs[low + 1] - logs[low])).clamp(0.0, 1.0);
    low as f64 + fraction
}

fn whole(timesteps: Vec<usize>) -> Vec<f64> {
    timesteps.into_iter().map(|t| t as f64).collect()
}
