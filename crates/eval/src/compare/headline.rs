//! The result in a sentence.

use super::model::Comparison;
use super::results::Results;
use crate::winrate::{Verdict, WinRate};

/// What the scorers say about the others and the baseline, in one sentence or two.
pub fn headline(comparison: &Comparison, results: &Results) -> String {
    let baseline = comparison.baseline();
    let verdicts: Vec<Vec<Verdict>> =
        (1..comparison.models.len()).map(|other| verdicts(comparison, results, other)).collect();
    let on = comparison
        .focus
        .as_ref()
        .map_or(String::new(), |focus| format!(" on {} prompts", focus.replace(' ', "-")));
    match verdicts.as_slice() {
        [] => return format!("Nothing was compared with {baseline}."),
        [only] if only.iter().all(|verdict| !matches!(verdict, Verdict::Better | Verdict::Worse)) => {
            let name = &comparison.models[1].name;
            let by = if only.len() > 1 { format!(" by all {} scorers", only.len()) } else { String::new() };
            let n = results.overall(0, 1, 0).map_or(0, |rate| rate.n);
            return format!("{name} and {baseline}: no clear difference{on}{by} with {}.", seen(n));
        }
        [only] => return format!("{}{on}.", of_one(&comparison.models[1].name, baseline, only)),
        _ => {}
    }
    let all = verdicts.len();
    let count = |wanted: Verdict| {
        verdicts.iter().filter(|verdicts| verdicts.iter().all(|verdict| *verdict == wanted)).count()
    };
    let by = if comparison.scorers.len() > 1 { " by every scorer" } else { "" };
    let (better, worse) = (count(Verdict::Better), count(Verdict::Worse));
    let mut text = match better {
        0 => format!("None of {all} clearly beats {baseline}{by}{on}"),
        better if better == all => format!("All {all} beat {baseline}{by}{on}"),
        1 => format!("One of {all} beats {baseline}{by}{on}"),
        better => format!("{better} of {all} beat {baseline}{by}{on}"),
    };
    match worse {
        0 => {}
        1 => text += "; one loses to it",
        worse => text += &format!("; {worse} lose to it"),
    }
    format!("{text}. {}", best(comparison, results))
}

/// Every scorer's verdict about a model and the baseline.
fn verdicts(comparison: &Comparison, results: &Results, model: usize) -> Vec<Verdict> {
    let rates = (0..comparison.scorers.len()).filter_map(|scorer| results.overall(scorer, model, 0));
    rates.map(|rate: WinRate| rate.verdict()).collect()
}

fn of_one(name: &str, baseline: &str, verdicts: &[Verdict]) -> String {
    let n = verdicts.len();
    let count = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    let by = |count: usize| match (count, n) {
        (_, 1) => String::new(),
        (count, n) if count == n => format!(" by all {n} scorers"),
        (count, n) => format!(" by {count} of {n} scorers"),
    };
    match (count(Verdict::Better), count(Verdict::Worse)) {
        (better, 0) => format!("{name} beats {baseline}{}", by(better)),
        (0, worse) => format!("{name} loses to {baseline}{}", by(worse)),
        (better, worse) => {
            format!("The scorers disagree: {name} beats {baseline}{} and loses{}", by(better), by(worse))
        }
    }
}

/// How many samples there were, and what so many can show: the 95% interval of a win rate near one half is about `0.98 / sqrt(n)` to
/// either side.
fn seen(n: u64) -> String {
    let samples = if n == 1 { "sample" } else { "samples" };
    match n {
        0..100 => format!("{n} {samples}; about 100 are needed to see 10 points"),
        _ => format!("{n} {samples}, which show {:.0} points and more", (98.0 / (n as f64).sqrt()).ceil()),
    }
}

/// The model with the highest mean, by each scorer.
fn best(comparison: &Comparison, results: &Results) -> String {
    let best: Vec<(usize, &str)> = (0..comparison.scorers.len())
        .filter_map(|scorer| {
            let mean = |model: &usize| {
                results.score(scorer, *model, results.focus).map_or(f64::MIN, |score| score.mean.estimate)
            };
            let best = (0..comparison.models.len()).max_by(|a, b| mean(a).total_cmp(&mean(b)))?;
            Some((scorer, comparison.models[best].name.as_str()))
        })
        .collect();
    match best.as_slice() {
        [] => String::new(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => {
            format!("{first} has the highest mean score.")
        }
        several => {
            let parts: Vec<String> = several
                .iter()
                .map(|(scorer, name)| format!("{name} ({})", comparison.scorers[*scorer].name))
                .collect();
            format!("Highest mean score: {}.", parts.join(", "))
        }
    }
}
