//! Win rates: how often A scores above B for the same prompt and the same starting noise.

use crate::EvalError;
use std::collections::BTreeMap;
use tastemaker_math::intervals::{Interval, WinCount, bootstrap, mean, median};

/// Resamples of every bootstrap interval.
pub const N_RESAMPLES: u64 = 2000;

/// Two scores of one prompt from one starting noise. Higher is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScorePair {
    /// Index of the prompt.
    pub prompt: usize,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Score of the model under test.
    pub a: f64,
    /// Score of the model it is compared with.
    pub b: f64,
}

/// How A fared against B.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinRate {
    /// Pairs compared.
    pub n: u64,
    /// Pairs that A won.
    pub wins: u64,
    /// Pairs with equal scores.
    pub ties: u64,
    /// Pairs that A lost.
    pub losses: u64,
    /// `(wins + ties / 2) / n`, with its 95% Wilson interval.
    pub rate: Interval,
    /// Mean score difference A - B, each prompt counting once, with its 95% bootstrap interval over prompts.
    pub mean_difference: Interval,
    /// Median score difference A - B, as above.
    pub median_difference: Interval,
}

/// What a win rate with its interval allows to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies above one half.
    Better,
    /// The interval holds one half.
    Unclear,
    /// The whole interval lies below one half.
    Worse,
}

impl Verdict {
    /// One or two words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Unclear => "no clear difference",
            Self::Worse => "worse",
        }
    }

    /// The class of its color on a page.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Unclear => "unclear",
            other => other.word(),
        }
    }
}

impl WinRate {
    /// What it allows to say.
    pub fn verdict(&self) -> Verdict {
        match self.rate {
            Interval { low, .. } if low > 0.5 => Verdict::Better,
            Interval { high, .. } if high < 0.5 => Verdict::Worse,
            _ => Verdict::Unclear,
        }
    }

    /// How B fared against A.
    pub fn flipped(&self) -> Self {
        let negated = |of: &Interval| Interval { estimate: -of.estimate, low: -of.high, high: -of.low };
        Self {
            n: self.n,
            wins: self.losses,
            ties: self.ties,
            losses: self.wins,
            rate: Interval {
                estimate: (self.losses as f64 + 0.5 * self.ties as f64) / self.n as f64,
                low: 1.0 - self.rate.high,
                high: 1.0 - self.rate.low,
            },
            mean_difference: negated(&self.mean_difference),
            median_difference: negated(&self.median_difference),
        }
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
    if let Some(&ScorePair { prompt, seed, a, b }) =
        pairs.iter().find(|pair| !pair.a.is_finite() || !pair.b.is_finite())
    {
        return Err(EvalError::ScoreNotFinite { prompt, seed, a, b });
    }
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|pair| (pair.a, pair.b)).unzip();
    let count = WinCount::of_scores(&a, &b);
    let differences = by_prompt(pairs.iter().map(|pair| (pair.prompt, pair.a - pair.b)));
    Ok(WinRate {
        n: count.n(),
        wins: count.wins,
        ties: count.ties,
        losses: count.losses,
        rate: count.wilson_95().ok_or(EvalError::NothingToCompare)?,
        mean_difference: resampled(&differences, mean, seed)?,
        median_difference: resampled(&differences, median, seed)?,
    })
}

/// The means of what belongs to a prompt, in the order of the prompts.
pub(crate) fn by_prompt(values: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
    let mut by_prompt: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (prompt, value) in values {
        by_prompt.entry(prompt).or_default().push(value);
    }
    by_prompt.values().filter_map(|values| mean(values)).collect()
}

/// A statistic with its 95% bootstrap interval.
pub(crate) fn resampled(
    values: &[f64],
    statistic: fn(&[f64]) -> Option<f64>,
    seed: u64,
) -> Result<Interval, EvalError> {
    bootstrap(values, statistic, 0.95, N_RESAMPLES, seed).ok_or(EvalError::NothingToCompare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: usize, seed: u64, a: f64, b: f64) -> ScorePair {
        ScorePair { prompt, seed, a, b }
    }

    #[test]
    fn ties_count_half() {
        let rate = win_rate(&[pair(0, 1, 2.0, 1.0), pair(1, 1, 1.0, 1.0)], 7).unwrap();
        assert_eq!((rate.rate.estimate, rate.n, rate.wins, rate.ties), (0.75, 2, 1, 1));
    }

    #[test]
    fn swapping_sides_mirrors_everything() {
        let pairs: Vec<ScorePair> = (0..40)
            .map(|prompt| pair(prompt, 1, (prompt * 7 % 13) as f64, (prompt * 5 % 11) as f64))
            .collect();
        let swapped: Vec<ScorePair> = pairs.iter().map(|c| ScorePair { a: c.b, b: c.a, ..*c }).collect();
        let (there, back) = (win_rate(&pairs, 3).unwrap(), win_rate(&swapped, 3).unwrap());
        assert!((there.rate.estimate + back.rate.estimate - 1.0).abs() < 1e-12);
        assert!((there.rate.low + back.rate.high - 1.0).abs() < 1e-12);
        assert_eq!(there.mean_difference.estimate, -back.mean_difference.estimate);
        assert!((there.mean_difference.low + back.mean_difference.high).abs() < 1e-12);
        let flipped = there.flipped();
        assert_eq!((flipped.wins, flipped.ties, flipped.losses), (back.wins, back.ties, back.losses));
        for (one, other) in [
            (flipped.rate.estimate, back.rate.estimate),
            (flipped.rate.low, back.rate.low),
            (flipped.rate.high, back.rate.high),
            (flipped.median_difference.low, back.median_difference.low),
        ] {
            assert!((one - other).abs() < 1e-12);
        }
    }

    #[test]
    fn repeating_every_seed_does_not_narrow_the_bootstrap() {
        let once: Vec<ScorePair> = (0..30).map(|prompt| pair(prompt, 1, (prompt % 5) as f64, 1.0)).collect();
        let twice: Vec<ScorePair> = once.iter().flat_map(|&c| [c, ScorePair { seed: 2, ..c }]).collect();
        assert_eq!(win_rate(&once, 3).unwrap().mean_difference, win_rate(&twice, 3).unwrap().mean_difference);
    }

    #[test]
    fn a_score_that_is_not_finite_is_refused_by_name() {
        let error = win_rate(&[pair(4, 9, f64::NAN, 0.0)], 0).unwrap_err().to_string();
        assert_eq!(error, "score of prompt 4, seed 9 is not finite: NaN against 0");
    }

    #[test]
    fn nothing_to_compare_is_an_error() {
        let error = win_rate(&[], 0).unwrap_err().to_string();
        assert_eq!(error, "no images to compare: a win rate needs at least one of either model");
    }
}
