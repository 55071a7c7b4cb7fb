//! Scorers: what says how good a picture is for its prompt.

pub mod features;
mod logistic;
pub mod nearest_art;
mod panel;
pub mod preference;
pub mod preference_check;
pub mod self_check;

use std::collections::HashMap;

use crate::EvalError;
use image::RgbImage;

pub use nearest_art::{Artwork, Judge, Reading};
pub use panel::Panel;
pub use preference::{PreferenceScorer, RankedImages};
pub use preference_check::{
    ScorerCheck, ScorerCheckRow, StyleTaste, check_pairs, check_preference, motif_pairs, style_pairs,
};
pub use self_check::{CheckRow, Disturbance, self_check};

/// A picture together with the prompt it answers.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The picture.
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

/// Something that scores pictures for prompts. Higher is better.
pub trait Scorer {
    /// Name of the entry in [`SCORERS`], followed by what sets this one apart from others of the entry.
    fn name(&self) -> &str;

    /// One score per item, in the unit of the scorer's entry.
    ///
    /// # Errors
    /// Whatever keeps the scorer from judging an item; no score is ever made up.
    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError>;
}

/// How a scorer introduces itself to help texts and reference pages.
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

/// Every scorer this program knows.
pub static SCORERS: &[ScorerEntry] = &[nearest_art::ENTRY, preference::ENTRY];
