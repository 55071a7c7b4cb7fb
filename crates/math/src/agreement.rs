//! What several voters decide about an item, and how far voters agree.
//!
//! Votes are counted in tables: a row for each item, a column for each answer.

/// What people say about two images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    /// For the first.
    pub first: u64,
    /// For neither.
    pub tie: u64,
    /// For the second.
    pub second: u64,
}

/// What the votes about two images come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The first is preferred.
    First,
    /// Neither.
    Tie,
    /// The second is preferred.
    Second,
}

impl Votes {
    /// How many there are.
    pub fn n(self) -> u64 {
        self.first + self.tie + self.second
    }

    /// The answer that most voters gave, which among five is the majority that papers report. Where no answer has more votes
    /// than each other one, a tie; `None` without votes.
    pub fn decision(self) -> Option<Decision> {
        let Self { first, tie, second } = self;
        match self.n() {
            0 => None,
            _ if first > tie.max(second) => Some(Decision::First),
            _ if second > tie.max(first) => Some(Decision::Second),
            _ => Some(Decision::Tie),
        }
    }

    /// Fraction of the votes for the first, ties counting one half; `None` without votes.
    pub fn fraction(self) -> Option<f64> {
        (self.n() > 0).then(|| (self.first as f64 + 0.5 * self.tie as f64) / self.n() as f64)
    }
}

/// How unlike two answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All answers are equally unlike.
    Nominal,
    /// Columns are in order, and neighbors are more alike.
    Ordinal,
}

/// Fleiss' kappa of a table in which all items have the same number of votes, two at least: 1 for full agreement, 0 for that of
/// voters who draw lots. `None` for any other table, and where all votes are for one answer.
///
/// Source: Fleiss (1971), "Measuring nominal scale agreement among many raters", Psychological Bulletin 76.
pub fn fleiss_kappa(counts: &[Vec<u64>]) -> Option<f64> {
    let n_voters = counts.first()?.iter().sum::<u64>();
    if n_voters < 2 || counts.iter().any(|row| row.iter().sum::<u64>() != n_voters) {
        return None;
    }
    let (n, voters) = (counts.len() as f64, n_voters as f64);
    let squares = |row: &Vec<u64>| row.iter().map(|&count| (count * count) as f64).sum::<f64>();
    let observed =
        counts.iter().map(|row| (squares(row) - voters) / (voters * (voters - 1.0))).sum::<f64>() / n;
    let columns = totals(counts);
    let expected = columns.iter().map(|count| (count / (n * voters)).powi(2)).sum::<f64>();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

/// Krippendorff's alpha: 1 for full agreement, 0 for that of voters who draw lots. Items may have any number of votes; those with
/// fewer than two say nothing. `None` where nothing can be compared, or all votes are for one answer.
///
/// Source: Krippendorff (2011), "Computing Krippendorff's alpha-reliability".
pub fn krippendorff_alpha(counts: &[Vec<u64>], level: Level) -> Option<f64> {
    let paired: Vec<Vec<u64>> = counts.iter().filter(|row| row.iter().sum::<u64>() >= 2).cloned().collect();
    let n_answers = paired.first()?.len();
    let columns = totals(&paired);
    let n: f64 = columns.iter().sum();
    let distance = |a: usize, b: usize| match level {
        _ if a == b => 0.0,
        Level::Nominal => 1.0,
        Level::Ordinal => {
            let between: f64 = columns[a.min(b)..=a.max(b)].iter().sum();
            (between - 0.5 * (columns[a] + columns[b])).powi(2)
        }
    };
    let (mut observed, mut expected) = (0.0, 0.0);
    for a in 0..n_answers {
        for b in 0..n_answers {
            let together = |row: &Vec<u64>| (row[a] * row[b]) as f64 / (row.iter().sum::<u64>() - 1) as f64;
            observed += distance(a, b) * paired.iter().map(together).sum::<f64>();
            expected += distance(a, b) * columns[a] * columns[b] / (n - 1.0);
        }
    }
    (expected > 0.0).then(|| 1.0 - observed / expected)
}

/// Sums of the columns.
fn totals(counts: &[Vec<u64>]) -> Vec<f64> {
    let n_answers = counts.first().map_or(0, Vec::len);
    (0..n_answers).map(|answer| counts.iter().map(|row| row[answer] as f64).sum()).collect()
}
