//! What one pair shows without looking at others.

use std::time::{Duration, Instant};

use image::metadata::Orientation;

use super::checks::Kind;
use super::finding::Finding;
use super::look::{Look, caption_key};
use crate::set::PairSet;
use crate::{DataError, PairSource, Side};

/// Proportions that differ by more than this share are other proportions, not a rounding.
const MAX_ASPECT_DIFFERENCE: f64 = 0.01;

/// What was found in one pair, and what is kept of it.
pub struct Row {
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

/// Looks at the pair at a position.
///
/// # Errors
/// [`DataError`] if images cannot be had at all.
pub fn row(set: &PairSet, position: usize, resolution: u32) -> Result<Row, DataError> {
    let began = Instant::now();
    let mut findings = Vec::new();
    let mut found = |kind, side: Option<Side>, detail: String, badness: f64| {
        findings.push(Finding::of_pair(set, position, kind, side, detail, badness));
    };
    let mut decoding = Duration::ZERO;
    let mut looks = Vec::with_capacity(2);
    // The sides of a single image are that image.
    let sides = if set.label(position).is_some() { &Side::BOTH[..1] } else { &Side::BOTH };
    for &side in sides {
        let (look, spent) = Look::at(set, position, side)?;
        decoding += spent;
        let look = match look {
            Ok(look) => Some(look),
            Err(problem) => {
                found(Kind::BadImage, Some(side), problem, 0.0);
                None
            }
        };
        if let Some(look) = &look {
            of_image(look, side, resolution, &mut found);
        }
        looks.push(look);
    }
    if let [Some(winner), Some(loser)] = &looks[..] {
        of_both(set.spots(position)[0] == set.spots(position)[1], winner, loser, &mut found);
    }
    if caption_key(set.caption(position)) == 0 {
        found(Kind::EmptyCaption, None, format!("the caption is {:?}", set.caption(position)), 0.0);
    }
    findings.sort_by_key(|finding| finding.kind);
    let of_side = |i: usize| looks.get(i).and_then(Option::as_ref);
    Ok(Row {
        findings,
        pixels: [0, 1].map(|i| of_side(i).map_or(0, |look| look.pixels)),
        sizes: [0, 1].map(|i| of_side(i).map(|look| look.size)),
        decoding,
        busy: began.elapsed(),
    })
}

fn of_image(
    look: &Look,
    side: Side,
    resolution: u32,
    found: &mut impl FnMut(Kind, Option<Side>, String, f64),
) {
    let (width, height) = look.size;
    let shorter = width.min(height);
    if shorter < resolution {
        let detail = format!("{width} x {height} pixels; {resolution} wanted of the shorter side");
        found(Kind::Upscaled, Some(side), detail, f64::from(resolution) / f64::from(shorter));
    }
    if look.orientation != Orientation::NoTransforms {
        let detail = format!("EXIF orientation {}, and training ignores it", look.orientation.to_exif());
        found(Kind::ExifOrientation, Some(side), detail, f64::from(look.orientation.to_exif()));
    }
}

fn of_both(
    one_file: bool,
    winner: &Look,
    loser: &Look,
    found: &mut impl FnMut(Kind, Option<Side>, String, f64),
) {
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
