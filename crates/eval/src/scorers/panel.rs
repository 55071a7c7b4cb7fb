//! Several scorers of the same images.

use super::{ImageCache, Item, Scorer};
use crate::EvalError;

/// Images in one forward pass unless said otherwise.
const BATCH: usize = 8;

/// Scorers in the order in which their scores are reported.
pub struct Panel {
    scorers: Vec<Box<dyn Scorer>>,
    batch_size: usize,
}

impl Panel {
    /// A panel of these scorers.
    pub fn new(scorers: Vec<Box<dyn Scorer>>) -> Self {
        Self { scorers, batch_size: BATCH }
    }

    /// The same with another number of images in one forward pass, 1 at least.
    pub fn with_batch_size(self, batch_size: usize) -> Self {
        Self { batch_size: batch_size.max(1), ..self }
    }

    /// Images in one forward pass.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The names of the scorers, in order.
    pub fn names(&self) -> Vec<String> {
        self.scorers.iter().map(|scorer| scorer.name().to_owned()).collect()
    }

    /// What each scorer multiplies its cosines by, where its scores are cosines.
    pub fn cosine_scales(&self) -> Vec<Option<f64>> {
        self.scorers.iter().map(|scorer| scorer.cosine_scale()).collect()
    }

    /// The fingerprint of each scorer, such as a hash of its weights, which are read again.
    ///
    /// # Errors
    /// Weights that cannot be read any more.
    pub fn fingerprints(&self) -> Result<Vec<String>, EvalError> {
        self.scorers.iter().map(|scorer| scorer.fingerprint()).collect()
    }

    /// Whether any scorer needs prompts.
    pub fn needs_prompts(&self) -> bool {
        self.scorers.iter().any(|scorer| scorer.needs_prompt())
    }

    /// The scores of every item by every scorer. Scorers that preprocess images alike share pixels and embeddings.
    ///
    /// # Shapes
    /// `[scorers][items]`.
    ///
    /// # Errors
    /// The first of any scorer.
    pub fn score(&self, items: &[Item<'_>]) -> Result<Vec<Vec<f64>>, EvalError> {
        let mut scores = vec![Vec::with_capacity(items.len()); self.scorers.len()];
        for (n, some) in items.chunks(self.batch_size).enumerate() {
            let mut cache = ImageCache::default();
            for (scorer, scores) in self.scorers.iter().zip(&mut scores) {
                let more = scorer.score_cached(some, &mut cache);
                scores.extend(more.map_err(|error| error.further(n * self.batch_size))?);
            }
        }
        Ok(scores)
    }
}
