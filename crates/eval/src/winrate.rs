//! Win rates: how often A scores above B for the same prompt and the same starting noise.

use crate::EvalError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tastemaker_math::intervals::{Interval, WinCount, bootstrap, mean, median};

/// Resamples of every bootstrap interval.
pub const N_RESAMPLES: u64 = 2000;

/// Whether a prompt was in the training pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Kept out of the training pairs.
    HeldOut,
    /// In the training pairs.
    Seen,
}

impl Group {
    /// The name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::HeldOut => "held out",
            Self::Seen => "seen",
        }
    }
}

/// One value for held-out prompts and one for seen prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split<T> {
    /// Over prompts kept out of the training pairs.
    pub held_out: T,
    /// Over prompts in the training pairs.
    pub seen: T,
}

impl<T> Split<T> {
    /// Builds both groups the same way, held-out first.
    ///
    /// # Errors
    /// The first error of `build`.
    pub fn try_build<E>(mut build: impl FnMut(Group) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { held_out: build(Group::HeldOut)?, seen: build(Group::Seen)? })
    }

    /// The value of a group.
    pub fn of(&self, group: Group) -> &T {
        match group {
            Group::HeldOut => &self.held_out,
            Group::Seen => &self.seen,
        }
    }
}

/// Two scores of one prompt from one starting noise. Higher is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScorePair {
    /// Index of the prompt.
    pub prompt: usize,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Whether the prompt was in the training pairs.
    pub group: Group,
    /// Score of the model under test.
    pub a: f64,
    /// Score of the model it is compared with.
    pub b: f64,
}

/// How A fared against B.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WinRate {
    /// Comparisons made.
    pub n: u64,
    /// Comparisons A won.
    pub wins: u64,
    /// Comparisons with equal scores.
    pub ties: u64,
    /// Comparisons A lost.
    pub losses: u64,
    /// `(wins + ties / 2) / n`.
    pub rate: f64,
    /// Lower end of the 95% Wilson interval.
    pub low: f64,
    /// Upper end of the 95% Wilson interval.
    pub high: f64,
    /// Mean score difference A - B, each prompt counting once.
    pub mean_difference: Bounds,
    /// Median score difference A - B, each prompt counting once.
    pub median_difference: Bounds,
}

/// A value with its 95% bootstrap interval over prompts, in the unit of the scorer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The measured value.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl WinRate {
    /// How B fared against A.
    pub fn flipped(&self) -> Self {
        Self {
            n: self.n,
            wins: self.losses,
            ties: self.ties,
            losses: self.wins,
            rate: (self.losses as f64 + 0.5 * self.ties as f64) / self.n as f64,
            low: 1.0 - self.high,
            high: 1.0 - self.low,
            mean_difference: self.mean_difference.negated(),
            median_difference: self.median_difference.negated(),
        }
    }
}

impl Bounds {
    fn negated(&self) -> Self {
        Self { value: -self.value, low: -self.high, high: -self.low }
    }
}

/// Win rate of A over all pairs given.
///
/// The Wilson interval takes pairs as independent. The bootstrap resamples prompts, because two images of
/// one prompt are not: differences are averaged over the seeds of a prompt first.
///
/// # Errors
/// No pairs, or a score that is not finite.
///
/// Source: Wilson (1927), JASA 22; Efron (1979), Annals of Statistics 7.
pub fn win_rate(pairs: &[ScorePair], seed: u64) -> Result<WinRate, EvalError> {
    if let Some(&ScorePair { prompt, seed, a, b, .. }) =
        pairs.iter().find(|pair| !pair.a.is_finite() || !pair.b.is_finite())
    {
        return Err(EvalError::ScoreNotFinite { prompt, seed, a, b });
    }
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|pair| (pair.a, pair.b)).unzip();
    let count = WinCount::of_scores(&a, &b);
    let nothing = || EvalError::NoComparisons { group: "all" };
    let wilson = count.wilson_95().ok_or_else(nothing)?;

    let mut by_prompt: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        by_prompt.entry(pair.prompt).or_default().push(pair.a - pair.b);
    }
    let differences: Vec<f64> = by_prompt.values().filter_map(|values| mean(values)).collect();
    let bounds = |statistic| {
        let Interval { estimate, low, high } =
            bootstrap(&differences, statistic, 0.95, N_RESAMPLES, seed).ok_or_else(nothing)?;
        Ok::<_, EvalError>(Bounds { value: estimate, low, high })
    };
    Ok(WinRate {
        n: count.n(),
        wins: count.wins,
        ties: count.ties,
        losses: count.losses,
        rate: wilson.estimate,
        low: wilson.low,
        high: wilson.high,
        mean_difference: bounds(mean)?,
        median_difference: bounds(median)?,
    })
}

/// Win rates over held-out and over seen prompts.
///
/// # Errors
/// A group without pairs, or a score that is not finite.
pub fn win_rates(pairs: &[ScorePair], seed: u64) -> Result<Split<WinRate>, EvalError> {
    Split::try_build(|group| {
        let of_group: Vec<ScorePair> = pairs.iter().copied().filter(|pair| pair.group == group).collect();
        if of_group.is_empty() {
            return Err(EvalError::NoComparisons { group: group.label() });
        }
        win_rate(&of_group, seed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: usize, seed: u64, group: Group, a: f64, b: f64) -> ScorePair {
        ScorePair { prompt, seed, group, a, b }
    }

    #[test]
    fn ties_count_half_and_groups_stay_apart() {
        let pairs = [
            pair(0, 1, Group::HeldOut, 2.0, 1.0),
            pair(1, 1, Group::HeldOut, 1.0, 1.0),
            pair(2, 1, Group::Seen, 0.0, 1.0),
        ];
        let rates = win_rates(&pairs, 7).unwrap();
        assert_eq!((rates.held_out.rate, rates.held_out.n), (0.75, 2));
        assert_eq!((rates.seen.rate, rates.seen.losses), (0.0, 1));
    }

    #[test]
    fn swapping_sides_mirrors_everything() {
        let pairs: Vec<ScorePair> = (0..40)
            .map(|prompt| pair(prompt, 1, Group::Seen, (prompt * 7 % 13) as f64, (prompt * 5 % 11) as f64))
            .collect();
        let swapped: Vec<ScorePair> = pairs.iter().map(|c| ScorePair { a: c.b, b: c.a, ..*c }).collect();
        let (there, back) = (win_rate(&pairs, 3).unwrap(), win_rate(&swapped, 3).unwrap());
        assert!((there.rate + back.rate - 1.0).abs() < 1e-12);
        assert!((there.low + back.high - 1.0).abs() < 1e-12);
        assert_eq!(there.mean_difference.value, -back.mean_difference.value);
        assert!((there.mean_difference.low + back.mean_difference.high).abs() < 1e-12);
        let flipped = there.flipped();
        assert_eq!((flipped.wins, flipped.ties, flipped.losses), (back.wins, back.ties, back.losses));
        for (one, other) in [(flipped.rate, back.rate), (flipped.low, back.low), (flipped.high, back.high)] {
            assert!((one - other).abs() < 1e-12);
        }
        assert!((flipped.median_difference.low - back.median_difference.low).abs() < 1e-12);
    }

    #[test]
    fn repeating_every_seed_does_not_narrow_the_bootstrap() {
        let once: Vec<ScorePair> =
            (0..30).map(|prompt| pair(prompt, 1, Group::Seen, (prompt % 5) as f64, 1.0)).collect();
        let twice: Vec<ScorePair> = once.iter().flat_map(|&c| [c, ScorePair { seed: 2, ..c }]).collect();
        assert_eq!(win_rate(&once, 3).unwrap().mean_difference, win_rate(&twice, 3).unwrap().mean_difference);
    }

    #[test]
    fn a_score_that_is_not_finite_is_refused_by_name() {
        let broken = [pair(4, 9, Group::Seen, f64::NAN, 0.0)];
        let error = win_rate(&broken, 0).unwrap_err().to_string();
        assert_eq!(error, "score of prompt 4, seed 9 is not finite: NaN against 0");
    }

    #[test]
    fn an_empty_group_is_an_error() {
        let seen_only = [pair(0, 1, Group::Seen, 1.0, 0.0)];
        let error = win_rates(&seen_only, 0).unwrap_err().to_string();
        assert_eq!(error, "no comparisons in group held out: a win rate needs at least one");
    }
}
