//! LAION's aesthetic predictor: a linear head on CLIP's image, whatever the prompt.

use std::rc::Rc;

use tastemaker_models::reward_head::RewardHead;

use super::cache::ImageCache;
use super::pixels::Fit;
use super::tower::Tower;
use super::{Item, Scorer, ScorerEntry, checked};
use crate::EvalError;

/// Its entry.
pub const ENTRY: ScorerEntry = ScorerEntry {
    name: "aesthetic",
    summary: "how much people like an image on average, whatever its prompt",
    unit: "points from 0 to 10; about 5 to 6.5",
    source: "christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE.pth on openai/clip-vit-large-patch14",
};

/// The predictor with weights.
#[derive(Debug)]
pub struct Aesthetic {
    tower: Rc<Tower>,
    head: RewardHead,
    head_fingerprint: String,
}

impl Aesthetic {
    /// A head and its fingerprint, as [`RewardHead::open`] gives them, on the tower it was trained with.
    pub fn new(tower: Rc<Tower>, (head, head_fingerprint): (RewardHead, String)) -> Self {
        Self { tower, head, head_fingerprint }
    }
}

impl Scorer for Aesthetic {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn needs_prompt(&self) -> bool {
        false
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        self.score_cached(items, &mut ImageCache::default())
    }

    fn score_cached(&self, items: &[Item<'_>], cache: &mut ImageCache) -> Result<Vec<f64>, EvalError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let images = self.tower.embed_images(items, Fit::Cut, cache)?;
        let scores = tch::no_grad(|| self.head.forward(&images));
        let scores = Vec::<f32>::try_from(scores)?.into_iter().map(f64::from);
        checked(self.name(), items, scores.collect())
    }

    fn fingerprint(&self) -> Result<String, EvalError> {
        Ok(format!("{} {} {}", ENTRY.name, self.head_fingerprint, self.tower.fingerprint()?))
    }
}
