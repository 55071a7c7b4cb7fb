//! Several scorers asked about the same pictures.

use super::{Item, Scorer};
use crate::EvalError;

/// Scorers in the order in which their scores are reported.
pub struct Panel {
    scorers: Vec<Box<dyn Scorer>>,
}

impl Panel {
    /// A panel of these scorers.
    pub fn new(scorers: Vec<Box<dyn Scorer>>) -> Self {
        Self { scorers }
    }

    /// The names of the scorers, in order.
    pub fn names(&self) -> Vec<String> {
        self.scorers.iter().map(|scorer| scorer.name().to_owned()).collect()
    }

    /// What every scorer says about every item.
    ///
    /// # Shapes
    /// `[scorers][items]`.
    ///
    /// # Errors
    /// The first of any scorer.
    pub fn score(&self, items: &[Item<'_>]) -> Result<Vec<Vec<f64>>, EvalError> {
        self.scorers.iter().map(|scorer| scorer.score(items)).collect()
    }
}
