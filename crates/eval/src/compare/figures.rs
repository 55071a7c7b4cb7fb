//! The figures of a comparison, computed from its scores alone.

use std::collections::BTreeMap;

use tastemaker_math::intervals::{Interval, bootstrap, mean, median};

use super::model::Comparison;
use crate::EvalError;
use crate::winrate::{Bounds, Group, N_RESAMPLES, ScorePair, WinRate, win_rate};

/// Everything a page and a summary say in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Categories in order of appearance, with how many prompts each has; empty if prompts have none or share one.
    pub categories: Vec<(String, usize)>,
    /// Scores of every model, overall and by category.
    pub standings: Vec<Standing>,
    /// Every model against every earlier one, overall and by category.
    pub duels: Vec<Duel>,
    /// How far scorers agree about every model and every earlier one; empty with a single scorer.
    pub agreements: Vec<Agreement>,
}

/// One model's scores by one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Index of the scorer.
    pub scorer: usize,
    /// Index of the model.
    pub model: usize,
    /// Index of the category, `None` for all prompts.
    pub category: Option<usize>,
    /// Images.
    pub n: usize,
    /// Mean score, each prompt counting once, with its 95% bootstrap interval over prompts.
    pub mean: Bounds,
    /// Median score over images.
    pub median: f64,
}

/// One model against another by one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct Duel {
    /// Index of the scorer.
    pub scorer: usize,
    /// Index of the one whose wins are counted.
    pub a: usize,
    /// Index of the one it is compared with.
    pub b: usize,
    /// Index of the category, `None` for all prompts.
    pub category: Option<usize>,
    /// How A fared.
    pub rate: WinRate,
}

/// How far scorers decide alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// Index of one model.
    pub a: usize,
    /// Index of the other.
    pub b: usize,
    /// Fraction of duels that two scorers decide alike, `[scorers][scorers]`.
    pub fractions: Vec<Vec<f64>>,
    /// Fraction of duels that all scorers decide alike.
    pub all: f64,
}

impl Figures {
    /// Computes everything.
    ///
    /// The duels of a category and the standings take each image as one; intervals of differences and means resample
    /// prompts, as in [`win_rate`].
    ///
    /// # Errors
    /// Parts that do not belong together, or a score that is not finite.
    pub fn of(comparison: &Comparison) -> Result<Self, EvalError> {
        comparison.validate()?;
        let categories = categories(comparison);
        let n = comparison.models.len();
        let groups: Vec<(Option<usize>, Vec<usize>)> =
            std::iter::once((None, (0..comparison.samples.len()).collect()))
                .chain(
                    categories
                        .iter()
                        .enumerate()
                        .map(|(index, (name, _))| (Some(index), within(comparison, name))),
                )
                .collect();
        let (mut standings, mut duels) = (Vec::new(), Vec::new());
        for scorer in 0..comparison.scorers.len() {
            for (category, samples) in &groups {
                for b in 0..n {
                    standings.push(standing(comparison, scorer, b, *category, samples)?);
                    for a in b + 1..n {
                        let rate = duel(comparison, scorer, a, b, samples)?;
                        duels.push(Duel { scorer, a, b, category: *category, rate });
                    }
                }
            }
        }
        let pairs = (0..n).flat_map(|b| (b + 1..n).map(move |a| (a, b)));
        let agreements = match comparison.scorers.len() {
            0 | 1 => Vec::new(),
            _ => pairs.map(|(a, b)| agreement(comparison, a, b)).collect(),
        };
        Ok(Self { categories, standings, duels, agreements })
    }

    /// How A fared against B; `None` for one against itself.
    pub fn duel(&self, scorer: usize, a: usize, b: usize, category: Option<usize>) -> Option<WinRate> {
        let found = |a: usize, b: usize| {
            self.duels
                .iter()
                .find(|duel| (duel.scorer, duel.a, duel.b, duel.category) == (scorer, a, b, category))
        };
        match found(a, b) {
            Some(duel) => Some(duel.rate),
            None => found(b, a).map(|duel| duel.rate.flipped()),
        }
    }

    /// A model's scores.
    pub fn standing(&self, scorer: usize, model: usize, category: Option<usize>) -> Option<&Standing> {
        self.standings.iter().find(|standing| {
            (standing.scorer, standing.model, standing.category) == (scorer, model, category)
        })
    }

    /// How far scorers agree about two models.
    pub fn agreement(&self, a: usize, b: usize) -> Option<&Agreement> {
        self.agreements.iter().find(|found| (found.a, found.b) == (a, b) || (found.a, found.b) == (b, a))
    }
}

fn categories(comparison: &Comparison) -> Vec<(String, usize)> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    let mut prompts: Vec<usize> = comparison.samples.iter().map(|sample| sample.prompt).collect();
    prompts.sort_unstable();
    prompts.dedup();
    for category in prompts.iter().filter_map(|&prompt| comparison.prompts[prompt].category.as_ref()) {
        match counted.iter_mut().find(|(known, _)| known == category) {
            Some((_, n)) => *n += 1,
            None => counted.push((category.clone(), 1)),
        }
    }
    if counted.len() == 1 && counted[0].1 == prompts.len() { Vec::new() } else { counted }
}

fn within(comparison: &Comparison, category: &str) -> Vec<usize> {
    (0..comparison.samples.len())
        .filter(|&index| comparison.category(&comparison.samples[index]) == Some(category))
        .collect()
}

fn duel(
    comparison: &Comparison,
    scorer: usize,
    a: usize,
    b: usize,
    samples: &[usize],
) -> Result<WinRate, EvalError> {
    let scores = &comparison.scores[scorer];
    let pairs: Vec<ScorePair> = samples
        .iter()
        .map(|&index| ScorePair {
            prompt: comparison.samples[index].prompt,
            seed: comparison.samples[index].seed,
            // Nobody here knows what a model was trained on; categories stand in the place of groups.
            group: Group::HeldOut,
            a: scores[a][index],
            b: scores[b][index],
        })
        .collect();
    win_rate(&pairs, comparison.seed)
}

fn standing(
    comparison: &Comparison,
    scorer: usize,
    model: usize,
    category: Option<usize>,
    samples: &[usize],
) -> Result<Standing, EvalError> {
    let scores = &comparison.scores[scorer][model];
    let mut by_prompt: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for &index in samples {
        by_prompt.entry(comparison.samples[index].prompt).or_default().push(scores[index]);
    }
    let means: Vec<f64> = by_prompt.values().filter_map(|scores| mean(scores)).collect();
    let all: Vec<f64> = samples.iter().map(|&index| scores[index]).collect();
    let nothing = || EvalError::NoComparisons { group: "all" };
    let Interval { estimate, low, high } =
        bootstrap(&means, mean, 0.95, N_RESAMPLES, comparison.seed).ok_or_else(nothing)?;
    Ok(Standing {
        scorer,
        model,
        category,
        n: all.len(),
        mean: Bounds { value: estimate, low, high },
        median: median(&all).ok_or_else(nothing)?,
    })
}

fn agreement(comparison: &Comparison, a: usize, b: usize) -> Agreement {
    let n_samples = comparison.samples.len();
    let decided = |scorer: usize, index: usize| {
        let scores = &comparison.scores[scorer];
        scores[a][index].partial_cmp(&scores[b][index])
    };
    let fraction = |alike: &dyn Fn(usize) -> bool| {
        (0..n_samples).filter(|&index| alike(index)).count() as f64 / n_samples as f64
    };
    let n = comparison.scorers.len();
    let row = |one: usize| {
        (0..n).map(|other| fraction(&|index| decided(one, index) == decided(other, index))).collect()
    };
    Agreement {
        a,
        b,
        fractions: (0..n).map(row).collect(),
        all: fraction(&|index| (1..n).all(|scorer| decided(scorer, index) == decided(0, index))),
    }
}
