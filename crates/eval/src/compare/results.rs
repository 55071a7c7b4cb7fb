//! The results of a comparison, computed from its scores alone.

use std::cmp::Ordering;

use tastemaker_math::intervals::{Interval, mean, median};

use super::model::Comparison;
use crate::EvalError;
use crate::winrate::{ScorePair, WinRate, by_prompt, resampled, win_rate};

/// Everything a page and a summary say in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Categories in order of appearance, with how many prompts each has; empty if prompts have none or share one.
    pub categories: Vec<(String, usize)>,
    /// The category that overall results are about, `None` for all prompts.
    pub focus: Option<usize>,
    /// Scores of every model, overall and by category.
    pub scores: Vec<ModelScore>,
    /// Every model against every earlier one, overall and by category.
    pub win_rates: Vec<PairwiseWinRate>,
    /// How far scorers agree about every model and every earlier one; empty with a single scorer.
    pub agreements: Vec<Agreement>,
}

/// A model's scores by one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelScore {
    /// Index of the scorer.
    pub scorer: usize,
    /// Index of the model.
    pub model: usize,
    /// Index of the category, `None` for all prompts.
    pub category: Option<usize>,
    /// Images.
    pub n: usize,
    /// Mean score, each prompt counting once, with its 95% bootstrap interval over prompts.
    pub mean: Interval,
    /// Median score over images.
    pub median: f64,
}

/// One model against another by one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct PairwiseWinRate {
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
    /// Fraction of samples that two scorers decide alike, `[scorers][scorers]`.
    pub fractions: Vec<Vec<f64>>,
    /// Fraction of samples that all scorers decide alike.
    pub all: f64,
}

impl Results {
    /// Computes everything.
    ///
    /// Counts take each image as one; intervals of differences and means resample prompts, as in [`win_rate`]. With a focus,
    /// nothing is computed over all prompts.
    ///
    /// # Errors
    /// Parts that do not belong together, or a score that is not finite.
    pub fn of(comparison: &Comparison) -> Result<Self, EvalError> {
        comparison.validate()?;
        let categories = categories(comparison);
        let n = comparison.models.len();
        let named = categories.iter().enumerate();
        let groups: Vec<(Option<usize>, Vec<usize>)> = (comparison.focus.is_none().then_some((None, None)))
            .into_iter()
            .chain(named.map(|(index, (name, _))| (Some(index), Some(name.as_str()))))
            .map(|(index, name)| (index, comparison.within(name)))
            .collect();
        let (mut scores, mut win_rates) = (Vec::new(), Vec::new());
        for scorer in 0..comparison.scorers.len() {
            for (category, samples) in &groups {
                for b in 0..n {
                    scores.push(model_score(comparison, scorer, b, *category, samples)?);
                    for a in b + 1..n {
                        let rate = pairwise(comparison, scorer, a, b, samples)?;
                        win_rates.push(PairwiseWinRate { scorer, a, b, category: *category, rate });
                    }
                }
            }
        }
        let pairs = (0..n).flat_map(|b| (b + 1..n).map(move |a| (a, b)));
        let agreements = match comparison.scorers.len() {
            0 | 1 => Vec::new(),
            _ => pairs.map(|(a, b)| agreement(comparison, a, b)).collect(),
        };
        let focus =
            comparison.focus.as_ref().and_then(|focus| categories.iter().position(|(name, _)| name == focus));
        Ok(Self { categories, focus, scores, win_rates, agreements })
    }

    /// How A fared against B in a category; `None` for one against itself.
    pub fn win_rate(&self, scorer: usize, a: usize, b: usize, category: Option<usize>) -> Option<WinRate> {
        let found = |a: usize, b: usize| {
            self.win_rates
                .iter()
                .find(|one| (one.scorer, one.a, one.b, one.category) == (scorer, a, b, category))
        };
        match found(a, b) {
            Some(found) => Some(found.rate),
            None => found(b, a).map(|found| found.rate.flipped()),
        }
    }

    /// How A fared against B overall; `None` for one against itself.
    pub fn overall(&self, scorer: usize, a: usize, b: usize) -> Option<WinRate> {
        self.win_rate(scorer, a, b, self.focus)
    }

    /// A model's scores in a category.
    pub fn score(&self, scorer: usize, model: usize, category: Option<usize>) -> Option<&ModelScore> {
        self.scores.iter().find(|one| (one.scorer, one.model, one.category) == (scorer, model, category))
    }

    /// How far scorers agree about two models.
    pub fn agreement(&self, a: usize, b: usize) -> Option<&Agreement> {
        self.agreements.iter().find(|found| (found.a, found.b) == (a, b) || (found.a, found.b) == (b, a))
    }
}

fn categories(comparison: &Comparison) -> Vec<(String, usize)> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    let prompts: std::collections::BTreeSet<usize> =
        comparison.samples.iter().map(|sample| sample.prompt).collect();
    for category in prompts.iter().filter_map(|&prompt| comparison.prompts[prompt].category.as_ref()) {
        match counted.iter_mut().find(|(known, _)| known == category) {
            Some((_, n)) => *n += 1,
            None => counted.push((category.clone(), 1)),
        }
    }
    let is_one = counted.len() == 1 && counted[0].1 == prompts.len() && comparison.focus.is_none();
    if is_one { Vec::new() } else { counted }
}

fn pairwise(
    comparison: &Comparison,
    scorer: usize,
    a: usize,
    b: usize,
    samples: &[usize],
) -> Result<WinRate, EvalError> {
    let scores = &comparison.scores[scorer];
    let pair = |&index: &usize| ScorePair {
        prompt: comparison.samples[index].prompt,
        seed: comparison.samples[index].seed,
        a: scores[a][index],
        b: scores[b][index],
    };
    win_rate(&samples.iter().map(pair).collect::<Vec<_>>(), comparison.seed)
}

fn model_score(
    comparison: &Comparison,
    scorer: usize,
    model: usize,
    category: Option<usize>,
    samples: &[usize],
) -> Result<ModelScore, EvalError> {
    let scores = &comparison.scores[scorer][model];
    let means = by_prompt(samples.iter().map(|&index| (comparison.samples[index].prompt, scores[index])));
    let all: Vec<f64> = samples.iter().map(|&index| scores[index]).collect();
    Ok(ModelScore {
        scorer,
        model,
        category,
        n: all.len(),
        mean: resampled(&means, mean, comparison.seed)?,
        median: median(&all).ok_or(EvalError::NothingToCompare)?,
    })
}

fn agreement(comparison: &Comparison, a: usize, b: usize) -> Agreement {
    let samples = comparison.focused();
    let decided = |scorer: usize, index: usize| -> Option<Ordering> {
        let scores = &comparison.scores[scorer];
        scores[a][index].partial_cmp(&scores[b][index])
    };
    let fraction = |alike: &dyn Fn(usize) -> bool| {
        samples.iter().filter(|&&index| alike(index)).count() as f64 / samples.len() as f64
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
