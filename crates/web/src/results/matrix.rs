//! Several models against each other in one table.

use super::{QuestionResults, Rate};

/// Win rates of every model against every other.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix<'a> {
    /// Models, the one that wins most first.
    pub models: Vec<&'a str>,
    /// Win rates of the row's model against the column's; `None` for itself, and where the two did not meet.
    pub rates: Vec<Vec<Option<Rate>>>,
}

impl<'a> Matrix<'a> {
    /// Of a question, over all prompts; `None` for fewer than three models, of which a single rate says all.
    pub fn of(question: &'a QuestionResults) -> Option<Self> {
        let met = || question.comparisons.iter().filter(|one| one.category.is_none());
        let mut models: Vec<&str> = Vec::new();
        for name in met().flat_map(|one| [one.a.as_str(), one.b.as_str()]) {
            if !models.contains(&name) {
                models.push(name);
            }
        }
        if models.len() < 3 {
            return None;
        }
        let rate = |a: &str, b: &str| {
            met().find_map(|one| {
                if one.a == a && one.b == b {
                    Some(one.win_rate)
                } else if one.a == b && one.b == a {
                    let Rate { rate, low, high } = one.win_rate;
                    Some(Rate { rate: 1.0 - rate, low: 1.0 - high, high: 1.0 - low })
                } else {
                    None
                }
            })
        };
        let row = |models: &[&str], a: &str| models.iter().map(|b| rate(a, b)).collect::<Vec<_>>();
        let mean_of = |name: &str| mean(&row(&models, name)).unwrap_or_default();
        let mut sorted = models.clone();
        sorted.sort_by(|a, b| mean_of(b).total_cmp(&mean_of(a)));
        let rates = sorted.iter().map(|a| row(&sorted, a)).collect();
        Some(Self { models: sorted, rates })
    }

    /// Each model with its rates and their mean.
    pub fn rows(&self) -> impl Iterator<Item = (&'a str, &[Option<Rate>], Option<f64>)> {
        self.models.iter().zip(&self.rates).map(|(name, rates)| (*name, rates.as_slice(), mean(rates)))
    }
}

/// Over the others, each counting once.
fn mean(rates: &[Option<Rate>]) -> Option<f64> {
    let rates: Vec<f64> = rates.iter().flatten().map(|rate| rate.rate).collect();
    tastemaker_math::intervals::mean(&rates)
}
