//! The last few values of a metric.

use std::collections::VecDeque;

/// The last values, at most `capacity`.
#[derive(Debug, Clone)]
pub struct Window<T> {
    values: VecDeque<T>,
    capacity: usize,
}

impl<T> Window<T> {
    pub fn new(capacity: usize) -> Self {
        Self { values: VecDeque::with_capacity(capacity), capacity }
    }

    pub fn push(&mut self, value: T) {
        if self.values.len() == self.capacity {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The last `n` values, once there are so many.
    pub fn last(&self, n: usize) -> Option<impl Iterator<Item = &T> + Clone> {
        let skip = self.values.len().checked_sub(n)?;
        Some(self.values.range(skip..))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}

/// Mean of some values and the standard error of it, as if they were independent; `None` unless each is there.
pub fn mean_and_error(values: impl Iterator<Item = Option<f64>>) -> Option<(f64, f64)> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Some((mean, (variance / n).sqrt()))
}
