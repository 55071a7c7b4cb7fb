//! A judge that no trained network has a say in: which real artwork does a picture come closest to?
//!
//! The judge describes every real artwork once in the fixed feature space of [`features`](super::features).
//! Asked about a picture, it measures the squared distance `d^2` to every artwork and reads
//!
//! `log p(caption, style | picture) = log_softmax(-d^2 / TEMPERATURE)`.
//!
//! Its own reliability on real art that was blurred, shifted, compressed or tinted is measured by
//! [`self_check`](super::self_check), and belongs in every report that quotes it.

use super::features::{describe, squared_distance};
use super::{Item, Scorer, ScorerEntry};
use crate::EvalError;
use image::RgbImage;
use std::collections::HashMap;

/// What the probabilities of two artworks differ by: a factor e for every `TEMPERATURE` of squared distance.
///
/// Chosen once, by maximum likelihood of the right artwork over the disturbances of the self-check.
pub const TEMPERATURE: f64 = 0.01;

/// One real artwork of the gallery.
#[derive(Clone, Debug)]
pub struct Artwork {
    /// Index of its caption.
    pub caption: usize,
    /// Index of its style.
    pub style: usize,
    /// The picture.
    pub image: RgbImage,
}

/// The nearest-artwork judge.
#[derive(Clone, Debug)]
pub struct Judge {
    n_captions: usize,
    n_styles: usize,
    cells: Vec<(usize, usize)>, // caption, style of each artwork
    features: Vec<Vec<f32>>,    // of each artwork
}

/// What the judge sees in one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Caption of the nearest artwork.
    pub caption: usize,
    /// Style of the nearest artwork.
    pub style: usize,
    /// Squared feature distance to the nearest artwork.
    pub squared_distance: f64,
    /// Log probability of each caption in each style, `[n_captions * n_styles]`, styles fastest; minus infinity
    /// where the gallery has no such artwork.
    pub log_probability: Vec<f64>,
    n_styles: usize,
}

impl Judge {
    /// Describes a gallery of real artworks. Two artworks of the same caption and style count as alternatives.
    ///
    /// # Errors
    /// An empty gallery, or an artwork whose caption or style is out of range.
    pub fn new(gallery: &[Artwork], n_captions: usize, n_styles: usize) -> Result<Self, EvalError> {
        if gallery.is_empty() {
            return Err(EvalError::EmptyGallery);
        }
        let mut cells = Vec::with_capacity(gallery.len());
        let mut features = Vec::with_capacity(gallery.len());
        for (artwork, &Artwork { caption, style, ref image }) in gallery.iter().enumerate() {
            if caption >= n_captions || style >= n_styles {
                return Err(EvalError::ArtworkOutOfRange { artwork, caption, style, n_captions, n_styles });
            }
            cells.push((caption, style));
            features.push(describe(image));
        }
        Ok(Self { n_captions, n_styles, cells, features })
    }

    /// Number of captions the judge tells apart.
    pub fn n_captions(&self) -> usize {
        self.n_captions
    }

    /// Number of styles the judge tells apart.
    pub fn n_styles(&self) -> usize {
        self.n_styles
    }

    /// Reads one picture. A picture that is not 64 x 64 is resampled first.
    pub fn read(&self, picture: &RgbImage) -> Reading {
        let seen = describe(picture);
        let mut nearest = 0;
        let mut nearest_distance = f64::INFINITY;
        let mut squared_distances = vec![f64::INFINITY; self.n_captions * self.n_styles];
        for (artwork, (features, &(caption, style))) in self.features.iter().zip(&self.cells).enumerate() {
            let distance = f64::from(squared_distance(&seen, features));
            let cell = &mut squared_distances[caption * self.n_styles + style];
            *cell = cell.min(distance);
            if distance < nearest_distance {
                nearest = artwork;
                nearest_distance = distance;
            }
        }
        let (caption, style) = self.cells[nearest];
        let logits = squared_distances.iter().map(|distance| (nearest_distance - distance) / TEMPERATURE);
        let log_total = logits.clone().map(f64::exp).sum::<f64>().ln();
        Reading {
            caption,
            style,
            squared_distance: nearest_distance,
            log_probability: logits.map(|logit| logit - log_total).collect(),
            n_styles: self.n_styles,
        }
    }

    /// `log p(caption, style | picture)`: what win rates compare. Higher is better.
    ///
    /// # Panics
    /// If `caption` or `style` is out of range.
    pub fn score(&self, picture: &RgbImage, caption: usize, style: usize) -> f64 {
        self.read(picture).score(caption, style)
    }
}

impl Reading {
    /// `log p(caption, style | picture)`. Higher is better.
    ///
    /// # Panics
    /// If `caption` or `style` is out of range.
    pub fn score(&self, caption: usize, style: usize) -> f64 {
        self.caption_row(caption)[style]
    }

    /// `log p(caption | picture)`, whatever the style. Higher is better.
    ///
    /// # Panics
    /// If `caption` is out of range.
    pub fn caption_score(&self, caption: usize) -> f64 {
        log_sum_exp(self.caption_row(caption))
    }

    /// Whether the nearest artwork shows `caption`, in any style.
    pub fn caption_correct(&self, caption: usize) -> bool {
        self.caption == caption
    }

    /// The likeliest style of a picture known to be meant as `caption`.
    ///
    /// # Panics
    /// If `caption` is out of range.
    pub fn style_of(&self, caption: usize) -> usize {
        let row = self.caption_row(caption);
        (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(self.style)
    }

    fn caption_row(&self, caption: usize) -> &[f64] {
        &self.log_probability[caption * self.n_styles..(caption + 1) * self.n_styles]
    }
}

fn log_sum_exp(logs: &[f64]) -> f64 {
    let greatest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if greatest == f64::NEG_INFINITY {
        return greatest;
    }
    greatest + logs.iter().map(|log| (log - greatest).exp()).sum::<f64>().ln()
}

/// [`Judge`] as a [`Scorer`]: looks a prompt up among the captions and scores the picture for it.
#[derive(Clone, Debug)]
pub struct NearestArt {
    judge: Judge,
    captions: HashMap<String, usize>,
    style: Option<usize>,
}

impl NearestArt {
    /// A scorer for the judge's captions, in the order of their indices.
    ///
    /// With a `style`, a picture is scored for showing the caption in that style; without, in any.
    pub fn new(judge: Judge, captions: &[String], style: Option<usize>) -> Self {
        let captions = captions.iter().cloned().enumerate().map(|(index, caption)| (caption, index)).collect();
        Self { judge, captions, style }
    }
}

/// How [`NearestArt`] introduces itself.
pub const ENTRY: ScorerEntry = ScorerEntry {
    name: "nearest-art",
    summary: "log probability of the prompt's caption (and target style) by distance to real artworks",
    unit: "nats",
    source: "fixed formula: Oklab colour pyramid and orientation histograms (Dalal and Triggs, CVPR 2005)",
};

impl Scorer for NearestArt {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        let score = |item: &Item<'_>| {
            let &caption = self.captions.get(item.prompt).ok_or_else(|| EvalError::UnknownPrompt {
                prompt: item.prompt.to_owned(),
                n_captions: self.captions.len(),
            })?;
            let reading = self.judge.read(item.image);
            Ok(match self.style {
                Some(style) => reading.score(caption, style),
                None => reading.caption_score(caption),
            })
        };
        items.iter().map(score).collect()
    }
}
