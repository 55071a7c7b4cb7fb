//! Scorers that are a cosine between an image and its prompt: PickScore, HPS v2 and v2.1, CLIP score.

use std::rc::Rc;

use tch::Kind;

use super::cache::ImageCache;
use super::pixels::Fit;
use super::prompt_text::open_clip_text;
use super::tower::Tower;
use super::{Item, Scorer, ScorerEntry, checked};
use crate::EvalError;

/// PickScore.
pub const PICK_SCORE: ScorerEntry = ScorerEntry {
    name: "pick-score",
    summary: "which image a person would pick, learned from choices in the Pick-a-Pic web app",
    unit: "cosine times the learned scale, which is 100; about 19 to 24",
    source: "Kirstain et al. 2023 (arXiv 2305.01569), yuvalkirstain/PickScore_v1",
};

/// HPS v2.
pub const HPS_V2: ScorerEntry = ScorerEntry {
    name: "hps-v2",
    summary: "which image a person would prefer, learned from HPD v2; never to be compared with v2.1",
    unit: "100 times the cosine; about 24 to 29",
    source: "Wu et al. 2023 (arXiv 2306.09341), xswu/HPSv2 HPS_v2_compressed.pt",
};

/// HPS v2.1.
pub const HPS_V2_1: ScorerEntry = ScorerEntry {
    name: "hps-v2.1",
    summary: "HPS v2 with weights from better data; never to be compared with v2",
    unit: "100 times the cosine; about 23 to 34",
    source: "Wu et al. 2023 (arXiv 2306.09341), xswu/HPSv2 HPS_v2.1_compressed.pt",
};

/// CLIP score.
pub const CLIP_SCORE: ScorerEntry = ScorerEntry {
    name: "clip-score",
    summary: "how well an image shows what its prompt says",
    unit: "100 times the cosine; about 25 to 38, depending on the weights",
    source: "Hessel et al. 2021 (arXiv 2104.08718), without their factor 2.5; laion/CLIP-ViT-H-14-laion2B-s32B-b79K as in the DPO papers",
};

/// One of the entries above, with weights.
#[derive(Debug)]
pub struct ClipScorer {
    entry: ScorerEntry,
    tower: Rc<Tower>,
}

impl ClipScorer {
    /// The scorer of an entry: [`PICK_SCORE`], [`HPS_V2`], [`HPS_V2_1`] or [`CLIP_SCORE`].
    pub fn new(entry: ScorerEntry, tower: Rc<Tower>) -> Self {
        Self { entry, tower }
    }

    fn is_hps(&self) -> bool {
        self.entry == HPS_V2 || self.entry == HPS_V2_1
    }

    /// What published code multiplies its cosines by.
    fn factor(&self) -> f64 {
        if self.entry == PICK_SCORE { self.tower.scale() } else { 100.0 }
    }

    /// How published code makes squares of images for this scorer.
    fn fit(&self) -> Fit {
        if self.is_hps() { Fit::Pad } else { Fit::Cut }
    }
}

impl Scorer for ClipScorer {
    fn name(&self) -> &str {
        self.entry.name
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        self.score_cached(items, &mut ImageCache::default())
    }

    fn score_cached(&self, items: &[Item<'_>], cache: &mut ImageCache) -> Result<Vec<f64>, EvalError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let text = |item: &Item<'_>| match self.is_hps() {
            true => open_clip_text(item.prompt),
            false => item.prompt.to_owned(),
        };
        let prompts = self.tower.embed_prompts(&items.iter().map(text).collect::<Vec<_>>());
        let images = self.tower.embed_images(items, self.fit(), cache)?;
        let cosines = (images * prompts).sum_dim_intlist([1i64].as_slice(), false, Kind::Float); // [n]
        let factor = self.factor();
        let scores = Vec::<f32>::try_from(cosines)?.into_iter().map(|cosine| factor * f64::from(cosine));
        checked(self.name(), items, scores.collect())
    }

    fn cosine_scale(&self) -> Option<f64> {
        Some(self.factor())
    }

    fn fingerprint(&self) -> Result<String, EvalError> {
        Ok(format!("{} {} {:?}", self.entry.name, self.tower.fingerprint()?, self.fit()))
    }
}
