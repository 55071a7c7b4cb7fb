//! The figures of a comparison, computed from its scores alone.

use std::collections::BTreeMap;

use tastemaker_math::intervals::{Interval, bootstrap, mean, median};

use super::model::Contest;
use crate::EvalError;
use crate::winrate::{Bounds, Comparison, Group, N_RESAMPLES, WinRate, win_rate};

/// Everything a page and a summary say in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Categories in order of appearance, with how many prompts each has; empty if prompts have none or share one.
    pub categories: Vec<(String, usize)>,
    /// Scores of every contestant, overall and by category.
    pub standings: Vec<Standing>,
    /// Every contestant against every earlier one, overall and by category.
    pub duels: Vec<Duel>,
    /// How far scorers agree about every contestant and every earlier one; empty with a single scorer.
    pub agreements: Vec<Agreement>,
}

/// One contestant's scores by one scorer.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Index of the scorer.
    pub scorer: usize,
    /// Index of the contestant.
    pub contestant: usize,
    /// Index of the category, `None` for all prompts.
    pub category: Option<usize>,
    /// Images.
    pub n: usize,
    /// Mean score, each prompt counting once, with its 95% bootstrap interval over prompts.
    pub mean: Bounds,
    /// Median score over images.
    pub median: f64,
}

/// One contestant against another by one scorer.
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
    /// Index of one contestant.
    pub a: usize,
    /// Index of the other.
    pub b: usize,
    /// Share of duels that two scorers decide alike, `[scorers][scorers]`.
    pub shares: Vec<Vec<f64>>,
    /// Share of duels that all scorers decide alike.
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
    pub fn of(contest: &Contest) -> Result<Self, EvalError> {
        contest.validate()?;
        let categories = categories(contest);
        let n = contest.contestants.len();
        let groups: Vec<(Option<usize>, Vec<usize>)> =
            std::iter::once((None, (0..contest.questions.len()).collect()))
                .chain(
                    categories
                        .iter()
                        .enumerate()
                        .map(|(index, (name, _))| (Some(index), within(contest, name))),
                )
                .collect();
        let (mut standings, mut duels) = (Vec::new(), Vec::new());
        for scorer in 0..contest.scorers.len() {
            for (category, asked) in &groups {
                for b in 0..n {
                    standings.push(standing(contest, scorer, b, *category, asked)?);
                    for a in b + 1..n {
                        let rate = duel(contest, scorer, a, b, asked)?;
                        duels.push(Duel { scorer, a, b, category: *category, rate });
                    }
                }
            }
        }
        let pairs = (0..n).flat_map(|b| (b + 1..n).map(move |a| (a, b)));
        let agreements = match contest.scorers.len() {
            0 | 1 => Vec::new(),
            _ => pairs.map(|(a, b)| agreement(contest, a, b)).collect(),
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

    /// A contestant's scores.
    pub fn standing(&self, scorer: usize, contestant: usize, category: Option<usize>) -> Option<&Standing> {
        self.standings.iter().find(|standing| {
            (standing.scorer, standing.contestant, standing.category) == (scorer, contestant, category)
        })
    }

    /// How far scorers agree about two contestants.
    pub fn agreement(&self, a: usize, b: usize) -> Option<&Agreement> {
        self.agreements.iter().find(|found| (found.a, found.b) == (a, b) || (found.a, found.b) == (b, a))
    }
}

fn categories(contest: &Contest) -> Vec<(String, usize)> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    let mut asked: Vec<usize> = contest.questions.iter().map(|question| question.prompt).collect();
    asked.sort_unstable();
    asked.dedup();
    for category in asked.iter().filter_map(|&prompt| contest.prompts[prompt].category.as_ref()) {
        match counted.iter_mut().find(|(known, _)| known == category) {
            Some((_, n)) => *n += 1,
            None => counted.push((category.clone(), 1)),
        }
    }
    if counted.len() == 1 && counted[0].1 == asked.len() { Vec::new() } else { counted }
}

fn within(contest: &Contest, category: &str) -> Vec<usize> {
    (0..contest.questions.len())
        .filter(|&index| contest.category(&contest.questions[index]) == Some(category))
        .collect()
}

fn duel(contest: &Contest, scorer: usize, a: usize, b: usize, asked: &[usize]) -> Result<WinRate, EvalError> {
    let scores = &contest.scores[scorer];
    let comparisons: Vec<Comparison> = asked
        .iter()
        .map(|&index| Comparison {
            prompt: contest.questions[index].prompt,
            seed: contest.questions[index].seed,
            // Nobody here knows what a contestant was trained on; categories stand in the place of groups.
            group: Group::HeldOut,
            a: scores[a][index],
            b: scores[b][index],
        })
        .collect();
    win_rate(&comparisons, contest.seed)
}

fn standing(
    contest: &Contest,
    scorer: usize,
    contestant: usize,
    category: Option<usize>,
    asked: &[usize],
) -> Result<Standing, EvalError> {
    let scores = &contest.scores[scorer][contestant];
    let mut by_prompt: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for &index in asked {
        by_prompt.entry(contest.questions[index].prompt).or_default().push(scores[index]);
    }
    let means: Vec<f64> = by_prompt.values().filter_map(|scores| mean(scores)).collect();
    let all: Vec<f64> = asked.iter().map(|&index| scores[index]).collect();
    let nothing = || EvalError::NoComparisons { group: "all" };
    let Interval { estimate, low, high } =
        bootstrap(&means, mean, 0.95, N_RESAMPLES, contest.seed).ok_or_else(nothing)?;
    Ok(Standing {
        scorer,
        contestant,
        category,
        n: all.len(),
        mean: Bounds { value: estimate, low, high },
        median: median(&all).ok_or_else(nothing)?,
    })
}

fn agreement(contest: &Contest, a: usize, b: usize) -> Agreement {
    let n_questions = contest.questions.len();
    let decided = |scorer: usize, index: usize| {
        let scores = &contest.scores[scorer];
        scores[a][index].partial_cmp(&scores[b][index])
    };
    let share = |alike: &dyn Fn(usize) -> bool| {
        (0..n_questions).filter(|&index| alike(index)).count() as f64 / n_questions as f64
    };
    let n = contest.scorers.len();
    let row = |one: usize| {
        (0..n).map(|other| share(&|index| decided(one, index) == decided(other, index))).collect()
    };
    Agreement {
        a,
        b,
        shares: (0..n).map(row).collect(),
        all: share(&|index| (1..n).all(|scorer| decided(scorer, index) == decided(0, index))),
    }
}
