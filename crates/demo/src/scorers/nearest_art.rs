//! A judge that no trained network has a say in: which real artwork does an image come closest to?
//!
//! The judge describes every real artwork once in the fixed feature space of [`features`](super::features).
//! Asked about an image, it measures the squared distance `d^2` to every artwork and reads
//!
//! `log p(caption, style | image) = log_softmax(-d^2 / TEMPERATURE)`.
//!
//! Its own reliability on real art that was blurred, shifted, compressed or tinted is measured by
//! [`self_check`](super::self_check), and belongs in every report that quotes it.

use super::features::{describe, squared_distance};
use crate::DemoError;
use image::RgbImage;
use tastemaker_eval::scorers::ScorerEntry;

/// Squared distance over which a probability falls by a factor e.
///
/// About what a shift, blur or compression moves an image (0.01 to 0.08). Smaller values predict disturbed
/// real art slightly better, but leave nothing to compare between two images that are both clearly right.
pub const TEMPERATURE: f64 = 0.02;

/// One real artwork of the gallery.
#[derive(Clone, Debug)]
pub struct Artwork {
    /// Index of its caption.
    pub caption: usize,
    /// Index of its style.
    pub style: usize,
    /// The image.
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

/// What the judge sees in one image.
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
    pub fn new(gallery: &[Artwork], n_captions: usize, n_styles: usize) -> Result<Self, DemoError> {
        if gallery.is_empty() {
            return Err(DemoError::EmptyGallery);
        }
        let mut cells = Vec::with_capacity(gallery.len());
        let mut features = Vec::with_capacity(gallery.len());
        for (artwork, &Artwork { caption, style, ref image }) in gallery.iter().enumerate() {
            if caption >= n_captions || style >= n_styles {
                return Err(DemoError::ArtworkOutOfRange { artwork, caption, style, n_captions, n_styles });
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

    /// Reads one image. An image that is not 64 x 64 is resampled first.
    pub fn read(&self, image: &RgbImage) -> Reading {
        self.read_described(&describe(image))
    }

    /// Reads one image from what [`describe`] made of it, for callers that need both.
    pub(super) fn read_described(&self, seen: &[f32]) -> Reading {
        self.reading(self.features.iter().map(|artwork| squared_distance(seen, artwork)))
    }

    /// Reads several images at once: the same readings, with one pass over the gallery, which no cache holds.
    pub(super) fn read_all_described(&self, seen: &[&[f32]]) -> Vec<Reading> {
        let mut distances = vec![Vec::with_capacity(self.features.len()); seen.len()];
        for artwork in &self.features {
            for (distances, seen) in distances.iter_mut().zip(seen) {
                distances.push(squared_distance(seen, artwork));
            }
        }
        distances.into_iter().map(|distances| self.reading(distances)).collect()
    }

    /// The reading of an image at these squared distances from the artworks of the gallery.
    fn reading(&self, distances: impl IntoIterator<Item = f32>) -> Reading {
        let mut nearest = 0;
        let mut nearest_distance = f64::INFINITY;
        let mut squared_distances = vec![f64::INFINITY; self.n_captions * self.n_styles];
        for (artwork, (distance, &(caption, style))) in distances.into_iter().zip(&self.cells).enumerate() {
            let distance = f64::from(distance);
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
}

impl Reading {
    /// `log p(caption, style | image)`. Higher is better.
    ///
    /// # Panics
    /// If `caption` or `style` is out of range.
    pub fn score(&self, caption: usize, style: usize) -> f64 {
        self.caption_row(caption)[style]
    }

    /// `log p(caption | image)`, whatever the style. Higher is better.
    ///
    /// # Panics
    /// If `caption` is out of range.
    pub fn caption_score(&self, caption: usize) -> f64 {
        log_sum_exp(self.caption_row(caption))
    }

    /// Whether the nearest artwork shows `caption`, in any style. Artworks that are equally near all count: some
    /// styles draw two captions with the very same image.
    ///
    /// # Panics
    /// If `caption` is out of range.
    pub fn caption_correct(&self, caption: usize) -> bool {
        let likeliest = self.log_probability.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.caption_row(caption).contains(&likeliest)
    }

    /// The likeliest style of an image known to be meant as `caption`.
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

/// How the judge introduces itself as a scorer.
pub const ENTRY: ScorerEntry = ScorerEntry {
    name: "nearest-art",
    summary: "log probability of the prompt's caption (and target style) by distance to real artworks",
    unit: "nats",
    source: "fixed formula: Oklab color pyramid and orientation histograms (Dalal and Triggs, CVPR 2005)",
};

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// Two captions (a disc left, a disc right) in two styles (red, blue).
    fn gallery() -> Vec<Artwork> {
        let draw = |caption: usize, style: usize| Artwork {
            caption,
            style,
            image: RgbImage::from_fn(64, 64, |x, y| {
                let center = if caption == 0 { 20.0 } else { 44.0 };
                let inside = (x as f32 - center).hypot(y as f32 - 32.0) < 14.0;
                Rgb(if !inside {
                    [255; 3]
                } else if style == 0 {
                    [220, 30, 30]
                } else {
                    [30, 60, 220]
                })
            }),
        };
        vec![draw(0, 0), draw(0, 1), draw(1, 0), draw(1, 1)]
    }

    #[test]
    fn real_art_is_read_as_itself() {
        let gallery = gallery();
        let judge = Judge::new(&gallery, 2, 2).unwrap();
        for artwork in &gallery {
            let reading = judge.read(&artwork.image);
            assert_eq!((reading.caption, reading.style), (artwork.caption, artwork.style));
            assert_eq!(reading.style_of(artwork.caption), artwork.style);
            assert!(
                reading.caption_correct(artwork.caption) && !reading.caption_correct(1 - artwork.caption)
            );
            assert_eq!(reading.squared_distance, 0.0);
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_fall_with_squared_distance() {
        let gallery = gallery();
        let reading = Judge::new(&gallery, 2, 2).unwrap().read(&gallery[0].image);
        let total: f64 = reading.log_probability.iter().map(|log| log.exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
        let distance =
            f64::from(squared_distance(&describe(&gallery[0].image), &describe(&gallery[3].image)));
        let fall = reading.score(0, 0) - reading.score(1, 1);
        assert!((fall - distance / TEMPERATURE).abs() < 1e-9 * fall);
        assert!((reading.caption_score(0).exp() + reading.caption_score(1).exp() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn reading_images_together_changes_nothing() {
        let gallery = gallery();
        let judge = Judge::new(&gallery, 2, 2).unwrap();
        let described: Vec<Vec<f32>> = gallery.iter().map(|artwork| describe(&artwork.image)).collect();
        let together = judge.read_all_described(&described.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let alone: Vec<Reading> = gallery.iter().map(|artwork| judge.read(&artwork.image)).collect();
        assert_eq!(together, alone);
    }

    #[test]
    fn artworks_drawn_alike_count_for_every_caption_they_stand_for() {
        let mut gallery = gallery();
        gallery[2].image = gallery[0].image.clone();
        let reading = Judge::new(&gallery, 2, 2).unwrap().read(&gallery[0].image);
        assert!(reading.caption_correct(0) && reading.caption_correct(1));
    }

    #[test]
    fn captions_without_art_are_impossible_not_unlikely() {
        let gallery = gallery();
        let reading = Judge::new(&gallery[..3], 2, 2).unwrap().read(&gallery[3].image);
        assert_eq!(reading.score(1, 1), f64::NEG_INFINITY);
        assert!(reading.score(1, 0).is_finite());
    }

    #[test]
    fn galleries_that_do_not_fit_are_refused() {
        let refusal = |gallery: &[Artwork]| Judge::new(gallery, 2, 1).unwrap_err().to_string();
        assert!(refusal(&[]).starts_with("gallery is empty"));
        assert!(refusal(&gallery()).starts_with("artwork 1 has caption 0 and style 1"));
    }
}
