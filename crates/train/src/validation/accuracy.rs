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
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_run::Plan;
use tastemaker_torch::error::guard;
use tch::Device;

use crate::TrainError;
use crate::data::Use;
use crate::data::cache::{self, Tell, precision};
use crate::data::encode::Captions;
use crate::data::labels::labels;
use crate::data::{FIRST_DRAW, Making, Pairs, chunks};
use crate::step::Timesteps;
use crate::validation::{Look, ProbeSet, Spread, looks};

/// What a network says about every pair under every draw, by identity and repetition.
pub type Looks = BTreeMap<(u64, u64), Look>;

/// How often pairs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// Looks at each pair, at timesteps from as many equal parts of the schedule. The paper has 10.
    pub per_pair: u64,
    /// Pairs per forward pass.
    pub batch_size: usize,
}

/// What one model says about the pairs of a plan, which are encoded and cached as a run of the plan would.
///
/// Draws depend on the plan's seed, pairs and repetitions alone, so that another model is asked the same, at another time. Winner
/// and loser share timestep and noise, as in training. `heard` is told how many looks are done, and of how many.
///
/// # Errors
/// [`TrainError`] for single images, and for a model, pairs or a cache that cannot be read.
pub fn ask(
    plan: &Plan,
    (model, lora): (&Model, Option<LoraFile>),
    device: Device,
    source: &dyn PairSource,
    draws: Draws,
    tell: &mut Tell<'_>,
    heard: &mut dyn FnMut(u64, u64),
) -> Result<Looks, TrainError> {
    if labels(source).is_some() {
        return Err(TrainError::SingleImages { method: "accuracy" });
    }
    let captions = Captions::of(source);
    let settings = cache::caching(plan, device, (0, 1));
    let (cache, key) = cache::cache(plan, model, source, &captions, &settings, tell)?;
    let (lora, text) = lora.map(LoraFile::into_specs).unwrap_or_default();
    let text = (!text.is_empty()).then(|| model.adapted_text(text, precision(plan), device)).transpose()?;
    let pairs = cache::open_cached(plan, model, source, &captions, (&cache, &key), text.as_ref())?;
    let network = model.unet(Role::Frozen, precision(plan), device, lora)?.network;
    let schedule = model.schedule()?.schedule;

    let there = (0..source.len()).filter(|&index| pairs.has(index));
    let uses = there.flat_map(|index| {
        (0..draws.per_pair).map(move |draw| Use { index, draw: FIRST_DRAW + draw, drop_caption: false })
    });
    let parts = chunks(uses, draws.batch_size, |one| pairs.resolution(one.index));
    let all: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let making = Making { augmentation: cache::augmentation(plan), with_losers: true, device };
    let mut done = 0;
    let mut batches = parts.iter().filter_map(|part| {
        heard(done, all);
        done += part.len() as u64;
        pairs.batch(part, &making).map(|made| made.batch).transpose()
    });
    let set = ProbeSet {
        spread: Spread::OverDraws(draws.per_pair),
        timesteps: Timesteps::All,
        seed: plan.train.seed,
        text: text.as_ref(),
    };
    let doing = format!("looking at {} pairs at once (a smaller batch needs less memory)", draws.batch_size);
    let found = guard(&doing, || looks(&network, &schedule, &set, &mut batches))??;
    drop(batches);
    heard(all, all);
    Ok(found)
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

/// How often the better image was preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Pairs by what was preferred; equal margins are ties.
    pub count: WinCount,
    /// The share of winners preferred, ties at one half, with its 95% Wilson interval, which takes pairs as independent.
    pub interval: Interval,
}

/// What a model prefers over a set of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// By the mean margin over all draws of a pair.
    pub whole: Share,
    /// By the mean margin over a pair's draws in each quarter of the schedule, the least noise first; `None` for a quarter in which
    /// no pair was looked at.
    pub by_quarter: [Option<Share>; 4],
    /// Mean over pairs of the mean margin.
    pub margin: f64,
    /// Mean over pairs of `-log sigmoid(beta / 2 margin)`, `beta` as the loss of Diffusion-DPO takes it, if it was given: ln 2 of a
    /// model that prefers nothing.
    pub log_loss: Option<f64>,
}

/// The accuracy of what was found; `None` without pairs that both have looked at. `n_timesteps` is the length of the schedule.
pub fn accuracy(
    policy: &Looks,
    reference: Option<&Looks>,
    n_timesteps: usize,
    beta: Option<f64>,
) -> Option<Accuracy> {
    let mut margins: BTreeMap<u64, Vec<(usize, f64)>> = BTreeMap::new();
    for (key, look) in policy {
        let before = match reference {
            Some(reference) => match reference.get(key) {
                Some(before) => before.loser - before.winner,
                None => continue,
            },
            None => 0.0,
        };
        let quarter = (4 * look.timestep / n_timesteps.max(1)).min(3);
        margins.entry(key.0).or_default().push((quarter, (look.loser - look.winner) - before));
    }
    let of = |wanted: Option<usize>| -> Vec<f64> {
        let within = |margins: &Vec<(usize, f64)>| {
            let some = margins.iter().filter(|(quarter, _)| wanted.is_none_or(|wanted| wanted == *quarter));
            mean(&some.map(|(_, margin)| *margin).collect::<Vec<f64>>())
        };
        margins.values().filter_map(within).collect()
    };
    let share = |margins: &[f64]| {
        let count = WinCount::of_scores(margins, &vec![0.0; margins.len()]);
        Some(Share { count, interval: count.wilson_95()? })
    };
    let whole = of(None);
    let log_loss = |beta: f64| {
        // softplus(-x), which does not overflow
        let losses: Vec<f64> = whole.iter().map(|margin| softplus(-0.5 * beta * margin)).collect();
        mean(&losses)
    };
    Some(Accuracy {
        whole: share(&whole)?,
        by_quarter: [0, 1, 2, 3].map(|quarter| share(&of(Some(quarter)))),
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

    /// A look of each pair at timesteps 100 and 900 of 1000.
    fn looks(errors: &[[(f64, f64); 2]]) -> Looks {
        let mut found = Looks::new();
        for (pair, both) in errors.iter().enumerate() {
            for (draw, (&(winner, loser), timestep)) in both.iter().zip([100, 900]).enumerate() {
                found.insert((pair as u64, draw as u64), Look { timestep, winner, loser });
            }
        }
        found
    }

    #[test]
    fn a_model_beside_itself_prefers_nothing() {
        let same = looks(&[[(0.3, 0.2), (0.5, 0.9)], [(0.1, 0.7), (0.4, 0.4)]]);
        let found = accuracy(&same, Some(&same), 1000, Some(5000.0)).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 0, ties: 2, losses: 0 });
        assert_eq!((found.whole.interval.estimate, found.margin), (0.5, 0.0));
        assert!((found.log_loss.unwrap() - std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn margins_are_means_over_draws_and_quarters_count_their_own() {
        // Pair 0: +0.1 and -0.3 against the reference; pair 1: +0.1 and +0.1
        let policy = looks(&[[(0.2, 0.4), (0.6, 0.5)], [(0.2, 0.4), (0.2, 0.4)]]);
        let reference = looks(&[[(0.2, 0.3), (0.5, 0.7)], [(0.2, 0.3), (0.2, 0.3)]]);
        let found = accuracy(&policy, Some(&reference), 1000, None).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 1, ties: 0, losses: 1 });
        assert_eq!(found.by_quarter[0].unwrap().count.wins, 2);
        assert_eq!(found.by_quarter[3].unwrap().count, WinCount { wins: 1, ties: 0, losses: 1 });
        assert_eq!((found.by_quarter[1], found.log_loss), (None, None));
        assert!((found.margin - 0.0).abs() < 1e-12, "{}", found.margin);
    }

    #[test]
    fn without_a_reference_the_smaller_error_wins() {
        let policy = looks(&[[(0.2, 0.4), (0.6, 0.5)], [(0.4, 0.2), (0.2, 0.2)]]);
        let found = accuracy(&policy, None, 1000, Some(10.0)).unwrap();
        assert_eq!(found.whole.count, WinCount { wins: 1, ties: 0, losses: 1 });
        // Margins are 0.05 and -0.1
        let wanted = (f64::ln_1p((-0.25_f64).exp()) + f64::ln_1p((0.5_f64).exp())) / 2.0;
        assert!((found.log_loss.unwrap() - wanted).abs() < 1e-12);
    }

    #[test]
    fn pairs_that_only_one_has_looked_at_do_not_count() {
        let policy = looks(&[[(0.2, 0.4), (0.2, 0.4)], [(0.4, 0.2), (0.4, 0.2)]]);
        let reference = looks(&[[(0.2, 0.3), (0.2, 0.3)]]);
        assert_eq!(accuracy(&policy, Some(&reference), 1000, None).unwrap().whole.count.n(), 1);
        assert_eq!(accuracy(&policy, Some(&Looks::new()), 1000, None), None);
    }
}
