//! Implicit-reward accuracy: how often a model prefers the image that people prefer.
//!
//! Diffusion-DPO's implicit reward of an image is `beta (log p(image) - log p_reference(image))`; under the bound that training
//! uses, the margin of a pair is `(e_loser - e_reference_loser) - (e_winner - e_reference_winner)` with denoising errors `e`, the
//! mean over draws of timestep and noise. Without a reference the margin is `e_loser - e_winner`, the likelihood itself, as MaPO
//! models preferences.
//!
//! Source: Wallace et al., "Diffusion model alignment using direct preference optimization" (CVPR 2024), section on implicit rewards.

use std::collections::BTreeMap;

use tastemaker_data::PairSource;
use tastemaker_math::intervals::{Interval, WinCount, mean};
use tastemaker_math::schedule::quarter;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_torch::error::guard;

use super::{DrawSettings, Measurement, Measurements, TimestepSpread, measure};
use crate::TrainError;
use crate::data::cache::{Encoder, OnEvent};
use crate::data::labels::labels;
use crate::data::{Augmentation, BatchOptions, EncodeSettings, FIRST_DRAW, Pairs, Rank, Use, chunks};
use crate::draws::Timesteps;

/// At which draws pairs are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// Draws of each pair, at timesteps from as many equal parts of the schedule. The paper has 10.
    pub per_pair: u64,
    /// Pairs per forward pass.
    pub batch_size: usize,
    /// Seed of timesteps and noise.
    pub seed: u64,
}

/// The errors of a model, with a LoRA if there is one, on pairs, which are encoded and cached as for training.
///
/// Draws depend on seed, pairs and repetitions alone, so that another model is measured at the same ones, at another time. Winner
/// and loser share timestep and noise, as in training. `on_progress` is called with the number of measurements done, and of all.
///
/// # Errors
/// [`TrainError`] for single images, for a model, pairs or a cache that cannot be read, and
/// [`TrainError::NonFiniteMeasurement`] for an error that is no number: it is no tie.
pub fn measure_model(
    model: &Model,
    lora: Option<LoraFile>,
    source: &dyn PairSource,
    encode: &EncodeSettings,
    draws: Draws,
    on_event: &mut OnEvent<'_>,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Measurements, TrainError> {
    let Draws { per_pair, batch_size, seed } = draws;
    if labels(source).is_some() {
        return Err(TrainError::SingleImages { method: "accuracy" });
    }
    let (precision, device) = (encode.precision, encode.device);
    let encoder = Encoder::new(model, source, encode.clone());
    let cache = encoder.cache(Rank::ONLY, on_event)?;
    let (lora, text) = lora.map(LoraFile::into_specs).unwrap_or_default();
    let text = (!text.is_empty()).then(|| model.adapted_text(text, precision, device)).transpose()?;
    let pairs = encoder.open_cached(&cache, text.as_ref())?;
    let network = model.backbone(Role::Frozen, precision, device, lora)?.network;
    let schedule = model.schedule()?.schedule;

    let cached = (0..source.len()).filter(|&index| pairs.has(index));
    let uses = cached.flat_map(|index| {
        (0..per_pair).map(move |draw| Use { index, draw: FIRST_DRAW + draw, drop_caption: false })
    });
    let parts = chunks(uses, batch_size, |one| pairs.resolution(one.index));
    let all: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let options =
        BatchOptions { augmentation: Augmentation { seed, joint: false }, with_losers: true, device };
    let mut done = 0;
    let mut batches = parts.iter().filter_map(|part| {
        on_progress(done, all);
        done += part.len() as u64;
        pairs.batch(part, &options).map(|loaded| loaded.batch).transpose()
    });
    let draws = DrawSettings {
        spread: TimestepSpread::OverDraws(per_pair),
        timesteps: Timesteps::All,
        seed,
        text: text.as_ref(),
    };
    let doing = format!("measuring {batch_size} pairs at once");
    let measured = guard(&doing, "a smaller batch_size needs less", || {
        measure(&network, &schedule, &draws, &mut batches)
    })??;
    drop(batches);
    on_progress(all, all);
    let is_finite = |errors: &Measurement| errors.winner.is_finite() && errors.loser.is_finite();
    match measured.iter().find(|(_, errors)| !is_finite(errors)) {
        Some((&(pair, _), _)) => Err(TrainError::NonFiniteMeasurement { pair }),
        None => Ok(measured),
    }
}

/// Whether errors of two models are errors of the same things.
///
/// # Errors
/// [`TrainError::NotComparable`] for another VAE, other noise levels or another kind of prediction; [`TrainError::Model`].
pub fn check_comparable(model: &Model, reference: &Model) -> Result<(), TrainError> {
    let differ = |part| Err(TrainError::NotComparable { part });
    if model.vae_fingerprint()? != reference.vae_fingerprint()? {
        return differ("VAE");
    }
    if model.schedule()?.schedule != reference.schedule()?.schedule {
        return differ("noise levels or kind of prediction");
    }
    Ok(())
}

/// How often the winner was preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preferred {
    /// Pairs by which image was preferred; equal margins are ties.
    pub count: WinCount,
    /// The fraction of winners preferred, ties at one half, with its 95% Wilson interval, which takes pairs as independent.
    pub interval: Interval,
}

/// What a model prefers over a set of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// By the mean margin over all draws of a pair.
    pub whole: Preferred,
    /// By the mean margin over a pair's draws in each quarter of the schedule, the least noise first; `None` for a quarter in which
    /// no pair was measured.
    pub by_quarter: [Option<Preferred>; 4],
    /// Mean over pairs of the mean margin.
    pub margin: f64,
    /// Mean over pairs of `-log sigmoid(beta / 2 margin)`, `beta` as the loss of Diffusion-DPO takes it, if it was given: ln 2 of a
    /// model that prefers nothing.
    pub log_loss: Option<f64>,
}

/// The accuracy by these measurements; `None` without pairs that both have. `n_timesteps` is the length of the schedule.
pub fn accuracy(
    policy: &Measurements,
    reference: Option<&Measurements>,
    n_timesteps: usize,
    beta: Option<f64>,
) -> Option<Accuracy> {
    let mut margins: BTreeMap<u64, Vec<(usize, f64)>> = BTreeMap::new();
    for (key, errors) in policy {
        let before = match reference {
            Some(reference) => match reference.get(key) {
                Some(before) => before.loser - before.winner,
                None => continue,
            },
            None => 0.0,
        };
        let quarter = quarter(errors.timestep, n_timesteps);
        margins.entry(key.0).or_default().push((quarter, (errors.loser - errors.winner) - before));
    }
    let of = |wanted: Option<usize>| -> Vec<f64> {
        let within = |margins: &Vec<(usize, f64)>| {
            let some = margins.iter().filter(|(quarter, _)| wanted.is_none_or(|wanted| wanted == *quarter));
            mean(&some.map(|(_, margin)| *margin).collect::<Vec<f64>>())
        };
        margins.values().filter_map(within).collect()
    };
    let preferred = |margins: &[f64]| {
        let count = WinCount::of_scores(margins, &vec![0.0; margins.len()]);
        Some(Preferred { count, interval: count.wilson_95()? })
    };
    let whole = of(None);
    let log_loss = |beta: f64| {
        // softplus(-x), which does not overflow
        let losses: Vec<f64> = whole.iter().map(|margin| softplus(-0.5 * beta * margin)).collect();
        mean(&losses)
    };
    Some(Accuracy {
        whole: preferred(&whole)?,
        by_quarter: [0, 1, 2, 3].map(|quarter| preferred(&of(Some(quarter)))),
        margin: mean(&whole)?,
        log_loss: beta.and_then(log_loss),
    })
}

/// `log(1 + exp(x))`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measurements of each pair at timesteps 100 and 900 of 1000.
    fn measurements(errors: &[[(f64, f64); 2]]) -> Measurements {
        let mut found = Measurements::new();
        for (pair, both) in errors.iter().enumerate() {
            for (draw, (&(winner, loser), timestep)) in both.iter().zip([100.0, 900.0]).enumerate() {
                found.insert((pair as u64, draw as u64), Measurement { timestep, winner, loser });
            }
        }
        found
    }

    #[test]
    fn a_model_beside_itself_prefers_nothing() {
        let same = measurements(&[[(0.3, 0.2), (0.5, 0.9)], [(0.1, 0.7), (0.4, 0.4)]]);
        let found = accuracy(&same, Some(&same), 1000, Some(5000.0)).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 0, ties: 2, losses: 0 });
        assert_eq!((found.whole.interval.estimate, found.margin), (0.5, 0.0));
        assert!((found.log_loss.unwrap() - std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn margins_are_means_over_draws_and_quarters_count_their_own() {
        // Pair 0: +0.1 and -0.3 against the reference; pair 1: +0.1 and +0.1
        let policy = measurements(&[[(0.2, 0.4), (0.6, 0.5)], [(0.2, 0.4), (0.2, 0.4)]]);
        let reference = measurements(&[[(0.2, 0.3), (0.5, 0.7)], [(0.2, 0.3), (0.2, 0.3)]]);
        let found = accuracy(&policy, Some(&reference), 1000, None).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 1, ties: 0, losses: 1 });
        assert_eq!(found.by_quarter[0].unwrap().count.wins, 2);
        assert_eq!(found.by_quarter[3].unwrap().count, WinCount { wins: 1, ties: 0, losses: 1 });
        assert_eq!((found.by_quarter[1], found.log_loss), (None, None));
        assert!((found.margin - 0.0).abs() < 1e-12, "{}", found.margin);
    }

    #[test]
    fn without_a_reference_the_smaller_error_wins() {
        let policy = measurements(&[[(0.2, 0.4), (0.6, 0.5)], [(0.4, 0.2), (0.2, 0.2)]]);
        let found = accuracy(&policy, None, 1000, Some(10.0)).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 1, ties: 0, losses: 1 });
        // Margins are 0.05 and -0.1
        let wanted = (f64::ln_1p((-0.25_f64).exp()) + f64::ln_1p((0.5_f64).exp())) / 2.0;
        assert!((found.log_loss.unwrap() - wanted).abs() < 1e-12);
    }

    #[test]
    fn pairs_that_only_one_has_measured_do_not_count() {
        let policy = measurements(&[[(0.2, 0.4), (0.2, 0.4)], [(0.4, 0.2), (0.4, 0.2)]]);
        let reference = measurements(&[[(0.2, 0.3), (0.2, 0.3)]]);
        assert_eq!(accuracy(&policy, Some(&reference), 1000, None).unwrap().whole.count.n(), 1);
        assert_eq!(accuracy(&policy, Some(&Measurements::new()), 1000, None), None);
    }
}
