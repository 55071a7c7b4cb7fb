//! How sure a measured rate, mean or median is.

use crate::keyed::{Keyed, Stream};

/// An estimate with the interval that covers the truth at the confidence asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The measured value.
    pub estimate: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// Standard deviations of a unit gaussian that hold 95% of it, two-sided.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// How often A was preferred to B over matched comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinCount {
    /// A was better.
    pub wins: u64,
    /// Neither was.
    pub ties: u64,
    /// B was better.
    pub losses: u64,
}

impl WinCount {
    /// Compares matched scores, higher being better.
    ///
    /// # Panics
    /// If the two lists differ in length: such scores are not matched.
    pub fn of_scores(a: &[f64], b: &[f64]) -> Self {
        assert_eq!(a.len(), b.len(), "matched scores come in equal numbers");
        let count =
            |holds: fn(&f64, &f64) -> bool| a.iter().zip(b).filter(|(a, b)| holds(a, b)).count() as u64;
        let (wins, losses) = (count(|a, b| a > b), count(|a, b| a < b));
        Self { wins, ties: a.len() as u64 - wins - losses, losses }
    }

    /// Comparisons made.
    pub fn n(self) -> u64 {
        self.wins + self.ties + self.losses
    }

    /// Win rate with its 95% Wilson interval, ties at half a win each; `None` without comparisons.
    pub fn wilson_95(self) -> Option<Interval> {
        wilson(self.wins as f64 + 0.5 * self.ties as f64, self.n(), Z_95)
    }
}

/// The Wilson score interval of a rate: `successes` out of `n`, `z` standard deviations wide; `None` for `n = 0`.
///
/// Half successes are allowed, so ties can count for one half. The interval then errs towards too wide, since a tie
/// varies less than a coin.
///
/// Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
pub fn wilson(successes: f64, n: u64, z: f64) -> Option<Interval> {
    if n == 0 {
        return None;
    }
    let n = n as f64;
    let rate = successes / n;
    let z2 = z * z;
    let center = (rate + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let radius = z / (1.0 + z2 / n) * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Interval { estimate: rate, low: (center - radius).max(0.0), high: (center + radius).min(1.0) })
}

/// The percentile bootstrap interval of a statistic, such as [`mean`] or [`median`].
///
/// Draws `n_resamples` samples of the same size with replacement, and takes the central `confidence`
/// (0.95 for 95%) of the statistic over them. Resample `k` is keyed on (`seed`, `k`): the interval is a pure function of
/// its arguments. `None` if there are no values or no resamples, or if the statistic is undefined.
///
/// Source: Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7.
pub fn bootstrap(
    values: &[f64],
    statistic: fn(&[f64]) -> Option<f64>,
    confidence: f64,
    n_resamples: u64,
    seed: u64,
) -> Option<Interval> {
    let estimate = statistic(values)?;
    let n = values.len() as u64;
    let mut resample = vec![0.0; values.len()];
    let mut statistics = (0..n_resamples)
        .map(|k| {
            let mut keyed = Keyed::new(seed, Stream::Bootstrap, k, 0);
            resample.fill_with(|| values[keyed.below(n) as usize]);
            statistic(&resample)
        })
        .collect::<Option<Vec<f64>>>()?;
    statistics.sort_by(f64::total_cmp);
    let tail = 0.5 * (1.0 - confidence);
    Some(Interval { estimate, low: quantile(&statistics, tail)?, high: quantile(&statistics, 1.0 - tail)? })
}

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The median, the mean of the middle two for an even count; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The quantile of ascending values at `fraction` in 0..=1, linear between neighbors; `None` of nothing.
fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    Some(below + (above - below) * position.fract())
}
