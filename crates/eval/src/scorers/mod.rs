//! Scorers: what says how good an image is for its prompt.

pub mod aesthetic;
pub mod cache;
pub mod clip_score;
pub mod image_reward;
mod panel;
mod pillow;
pub mod pixels;
mod prompt_text;
mod tower;

use std::collections::HashMap;

use crate::EvalError;
use image::RgbImage;

pub use aesthetic::Aesthetic;
pub use cache::ImageCache;
pub use clip_score::{CLIP_SCORE, ClipScorer, HPS_V2, HPS_V2_1, PICK_SCORE};
pub use image_reward::ImageReward;
pub use panel::Panel;
pub use tower::Tower;

/// An image together with its prompt.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The image.
    pub image: &'a RgbImage,
    /// The prompt.
    pub prompt: &'a str,
}

/// The index of the caption a prompt is, for scorers that know a fixed set of captions.
///
/// # Errors
/// [`EvalError::UnknownPrompt`].
pub fn caption_of(captions: &HashMap<String, usize>, prompt: &str) -> Result<usize, EvalError> {
    captions
        .get(prompt)
        .copied()
        .ok_or_else(|| EvalError::UnknownPrompt { prompt: prompt.to_owned(), n_captions: captions.len() })
}

/// Something that scores images for prompts. Higher is better.
pub trait Scorer {
    /// Name of the entry in [`SCORERS`], followed by what sets this one apart from others of the entry.
    fn name(&self) -> &str;

    /// One score per item, in the unit of the scorer's entry.
    ///
    /// # Errors
    /// Whatever keeps the scorer from judging an item; no score is ever made up.
    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError>;

    /// The same with a cache of these very items, which other scorers may have filled; what this one computes is added.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_cached(&self, items: &[Item<'_>], cache: &mut ImageCache) -> Result<Vec<f64>, EvalError> {
        let _ = cache;
        self.score(items)
    }

    /// What a cosine is multiplied by, where scores are cosines.
    fn cosine_scale(&self) -> Option<f64> {
        None
    }

    /// Whether the score depends on the prompt.
    fn needs_prompt(&self) -> bool {
        true
    }

    /// Differs between scorers whose scores are not to be mixed: the name, and a hash of the weights.
    ///
    /// # Errors
    /// Weights that cannot be read any more.
    fn fingerprint(&self) -> Result<String, EvalError> {
        Ok(self.name().to_owned())
    }
}

/// Scores that are all numbers.
fn checked(name: &str, items: &[Item<'_>], scores: Vec<f64>) -> Result<Vec<f64>, EvalError> {
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(item) => Err(EvalError::ImageScore {
            scorer: name.to_owned(),
            item,
            prompt: items[item].prompt.to_owned(),
            score: scores[item],
        }),
    }
}

/// A scorer for help texts and reference pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorerEntry {
    /// Kebab-case name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Unit of a score.
    pub unit: &'static str,
    /// Where the scorer comes from.
    pub source: &'static str,
}

/// The published scorers.
pub static SCORERS: &[ScorerEntry] =
    &[PICK_SCORE, HPS_V2, HPS_V2_1, CLIP_SCORE, image_reward::ENTRY, aesthetic::ENTRY];
