//! What is found in one pair by itself.

use std::time::{Duration, Instant};

use image::metadata::Orientation;

use super::checks::Kind;
use super::finding::Finding;
use super::inspect::{Inspected, caption_key};
use super::settings::Settings;
use crate::set::PairSet;
use crate::{DataError, PairSource, Side};

/// Proportions that differ by more than this fraction are other proportions, not a rounding.
const MAX_ASPECT_DIFFERENCE: f64 = 0.01;

/// Takes what was found: by which check, in which image, what, and how bad it is.
type Found<'a> = &'a mut dyn FnMut(Kind, Option<Side>, String, f64);

/// What was found in one pair, and what is kept of it.
pub struct CheckedRow {
    /// What was found, the worst kind first.
    pub findings: Vec<Finding>,
    /// Hashes of winner and loser; 0 for one that does not decode.
    pub pixels: [u64; 2],
    /// Sizes of winner and loser.
    pub sizes: [Option<(u32, u32)>; 2],
    /// Time spent in the decoder.
    pub decoding: Duration,
    /// Time spent in all.
    pub busy: Duration,
}

/// Checks the pair at a position.
///
/// # Errors
/// [`DataError`] if images cannot be had at all.
pub fn check_row(set: &PairSet, position: usize, settings: &Settings) -> Result<CheckedRow, DataError> {
    let began = Instant::now();
    let mut findings = Vec::new();
    let mut found = |kind, side: Option<Side>, detail: String, badness: f64| {
        findings.push(Finding::of_pair(set, position, kind, side, detail, badness));
    };
    let mut decoding = Duration::ZERO;
    let mut images = Vec::with_capacity(2);
    // The sides of a single image are that image.
    let sides = if set.label(position).is_some() { &Side::BOTH[..1] } else { &Side::BOTH };
    for &side in sides {
        let (image, spent) = Inspected::of(set, position, side)?;
        decoding += spent;
        match &image {
            Ok(image) => of_image(image, side, settings.resolution, &mut found),
            Err(problem) => found(Kind::BadImage, Some(side), problem.clone(), 0.0),
        }
        images.push(image.ok());
    }
    if let [Some(winner), Some(loser)] = &images[..] {
        of_both(
            set.image_ref(position, Side::Winner) == set.image_ref(position, Side::Loser),
            winner,
            loser,
            &mut found,
        );
    }
    if caption_key(set.caption(position)) == 0 {
        found(Kind::EmptyCaption, None, format!("the caption is {:?}", set.caption(position)), 0.0);
    }
    if let Some(tokens) = settings.caption_tokens
        && let Some(n) = tokens.more(set.caption(position))
    {
        let cut = n - tokens.limit;
        let detail = format!("{n} tokens; {} are seen and {cut} are cut", tokens.limit);
        found(Kind::CutCaption, None, detail, cut as f64);
    }
    if findings.iter().any(|finding| finding.kind == Kind::BadImage) {
        // The row is skipped, whatever else there is about it.
        findings.retain(|finding| finding.kind == Kind::BadImage);
    }
    findings.sort_by_key(|finding| finding.kind);
    let of_side = |i: usize| images.get(i).and_then(Option::as_ref);
    Ok(CheckedRow {
        findings,
        pixels: [0, 1].map(|i| of_side(i).map_or(0, |image| image.pixels)),
        sizes: [0, 1].map(|i| of_side(i).map(|image| image.size)),
        decoding,
        busy: began.elapsed(),
    })
}

fn of_image(image: &Inspected, side: Side, resolution: u32, found: Found<'_>) {
    let (width, height) = image.size;
    let shorter = width.min(height);
    if shorter < resolution {
        let detail = format!("{width} x {height} pixels; {resolution} wanted of the shorter side");
        found(Kind::Upscaled, Some(side), detail, f64::from(resolution) / f64::from(shorter));
    }
    if image.orientation != Orientation::NoTransforms {
        let detail = format!("EXIF orientation {}, and training ignores it", image.orientation.to_exif());
        found(Kind::ExifOrientation, Some(side), detail, f64::from(image.orientation.to_exif()));
    }
}

fn of_both(one_file: bool, winner: &Inspected, loser: &Inspected, found: Found<'_>) {
    let ((winner_width, winner_height), (loser_width, loser_height)) = (winner.size, loser.size);
    if winner.size == loser.size && winner.pixels == loser.pixels {
        let detail = if one_file { "both are one image" } else { "both have the same pixels" };
        found(Kind::IdenticalImages, None, detail.into(), 0.0);
    } else if let Some(difference) = winner.likeness(loser) {
        let detail = format!("they differ by {difference:.1} of 255 on average, reduced to 32 x 32");
        found(Kind::NearIdenticalImages, None, detail, -difference);
    }
    if winner.size == loser.size {
        return;
    }
    let aspect = |(width, height): (u32, u32)| f64::from(width) / f64::from(height);
    let ratio = aspect(winner.size) / aspect(loser.size);
    let ratio = ratio.max(1.0 / ratio);
    let sizes = format!("{winner_width} x {winner_height} and {loser_width} x {loser_height} pixels");
    if ratio > 1.0 + MAX_ASPECT_DIFFERENCE {
        found(Kind::AspectMismatch, None, sizes, ratio);
    } else {
        let scale = f64::from(winner_width) / f64::from(loser_width);
        found(Kind::SizeMismatch, None, sizes, scale.max(1.0 / scale));
    }
}
