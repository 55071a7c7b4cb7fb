//! ImageReward: a BLIP whose text encoder attends to the image.

use tastemaker_models::ModelError;
use tastemaker_models::blip::{ImageReward as Network, ImageRewardFiles};
use tastemaker_store::dtype::DType;
use tch::Device;

use super::cache::ImageCache;
use super::pixels::{Fit, Transform};
use super::{Item, Scorer, ScorerEntry, checked};
use crate::EvalError;

/// Its entry.
pub const ENTRY: ScorerEntry = ScorerEntry {
    name: "image-reward",
    summary: "how people rate an image for its prompt, learned from rankings by experts",
    unit: "standard deviations from the mean of its training data; about -2 to 2",
    source: "Xu et al. 2023 (arXiv 2304.05977), THUDM/ImageReward ImageReward.pt",
};

/// ImageReward with weights.
#[derive(Debug)]
pub struct ImageReward {
    network: Network,
    files: ImageRewardFiles,
    precision: DType,
}

impl ImageReward {
    /// Loads the weights.
    ///
    /// # Errors
    /// As [`ImageRewardFiles::load`].
    pub fn load(files: ImageRewardFiles, precision: DType, device: Device) -> Result<Self, ModelError> {
        Ok(Self { network: files.load(precision, device)?, files, precision })
    }
}

impl Scorer for ImageReward {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        self.score_cached(items, &mut ImageCache::default())
    }

    fn score_cached(&self, items: &[Item<'_>], cache: &mut ImageCache) -> Result<Vec<f64>, EvalError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let transform = Transform { fit: Fit::CutToEven, side: self.network.image_size() as u32 };
        let pixels = cache.pixels(items, transform)?;
        let prompts: Vec<&str> = items.iter().map(|item| item.prompt).collect();
        let scores = tch::no_grad(|| self.network.score(&pixels, &prompts));
        let scores = Vec::<f32>::try_from(scores)?.into_iter().map(f64::from);
        checked(self.name(), items, scores.collect())
    }

    fn fingerprint(&self) -> Result<String, EvalError> {
        Ok(format!("{} {} {:?}", ENTRY.name, self.files.fingerprint()?, self.precision))
    }
}
