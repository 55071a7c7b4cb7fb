//! The result in a sentence.

use super::figures::Figures;
use super::model::Comparison;
use crate::report::Verdict;

/// What the scorers say about the others and the first, in one sentence or two.
pub fn headline(comparison: &Comparison, figures: &Figures) -> String {
    let first = &comparison.models[0].name;
    let verdicts: Vec<Vec<Verdict>> =
        (1..comparison.models.len()).map(|other| verdicts(comparison, figures, other)).collect();
    if let [only] = verdicts.as_slice() {
        return format!("{}.", of_one(&comparison.models[1].name, first, only));
    }
    let all = verdicts.len();
    let count = |wanted: Verdict| {
        verdicts.iter().filter(|verdicts| verdicts.iter().all(|verdict| *verdict == wanted)).count()
    };
    let by = if comparison.scorers.len() > 1 { " by every scorer" } else { "" };
    let (better, worse) = (count(Verdict::Better), count(Verdict::Worse));
    let mut said = match better {
        0 => format!("None of {all} is shown to beat {first}{by}"),
        better if better == all => format!("All {all} beat {first}{by}"),
        1 => format!("One of {all} beats {first}{by}"),
        better => format!("{better} of {all} beat {first}{by}"),
    };
    match worse {
        0 => {}
        1 => said += "; one loses to it",
        worse => said += &format!("; {worse} lose to it"),
    }
    format!("{said}. {}", best(comparison, figures))
}

/// Every scorer's verdict about a model and the first.
pub(super) fn verdicts(comparison: &Comparison, figures: &Figures, model: usize) -> Vec<Verdict> {
    (0..comparison.scorers.len())
        .filter_map(|scorer| figures.duel(scorer, model, 0, None))
        .map(|rate| Verdict::of(&rate))
        .collect()
}

fn of_one(name: &str, first: &str, verdicts: &[Verdict]) -> String {
    let n = verdicts.len();
    let count = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    let by = |count: usize| match (count, n) {
        (_, 1) => String::new(),
        (count, n) if count == n => format!(" by all {n} scorers"),
        (count, n) => format!(" by {count} of {n} scorers"),
    };
    match (count(Verdict::Better), count(Verdict::Worse)) {
        (0, 0) => format!("{name} is not shown to differ from {first}{}", by(n)),
        (better, 0) => format!("{name} beats {first}{}", by(better)),
        (0, worse) => format!("{name} loses to {first}{}", by(worse)),
        (better, worse) => {
            format!("The scorers disagree: {name} beats {first}{} and loses{}", by(better), by(worse))
        }
    }
}

/// The model with the highest mean, by each scorer.
fn best(comparison: &Comparison, figures: &Figures) -> String {
    let best: Vec<(usize, usize)> = (0..comparison.scorers.len())
        .filter_map(|scorer| {
            let mean = |one: &usize| figures.standing(scorer, *one, None).map_or(f64::MIN, |s| s.mean.value);
            let best = (0..comparison.models.len()).max_by(|a, b| mean(a).total_cmp(&mean(b)))?;
            Some((scorer, best))
        })
        .collect();
    let name = |one: usize| &comparison.models[one].name;
    match best.as_slice() {
        [] => String::new(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => {
            format!("{} has the highest mean score.", name(*first))
        }
        several => {
            let parts: Vec<String> = several
                .iter()
                .map(|(scorer, one)| format!("{} ({})", name(*one), comparison.scorers[*scorer].name))
                .collect();
            format!("Highest mean score: {}.", parts.join(", "))
        }
    }
}
