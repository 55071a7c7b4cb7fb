//! The findings that the page shows with their images.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};

use super::finding::{Finding, Subject};
use super::summary::Summary;
use crate::set::PairSet;
use crate::{PairSource, Side};

/// Longer side of a thumbnail in pixels: sharp at twice the density of the page.
const SIDE: u32 = 320;

/// Most findings with images, so that the page stays small.
const MOST: usize = 36;

/// A finding as the page shows it.
pub struct Case<'a> {
    /// What was found.
    pub finding: &'a Finding,
    /// The caption, where there is a pair.
    pub caption: Option<&'a str>,
    /// Winner and loser as JPEG files; `None` for one that does not decode.
    pub thumbnails: [Option<Vec<u8>>; 2],
}

/// The remembered findings, those about pairs with both images.
pub fn cases<'a>(set: &'a PairSet, summary: &'a Summary) -> Vec<Case<'a>> {
    let mut n_pairs = 0;
    let mut case = |finding: &'a Finding| {
        let Subject::Pair(_, position) = finding.subject else {
            return Some(Case { finding, caption: None, thumbnails: [None, None] });
        };
        n_pairs += 1;
        (n_pairs <= MOST).then(|| Case {
            finding,
            caption: Some(set.caption(position)),
            thumbnails: Side::BOTH.map(|side| thumbnail(set, position, side)),
        })
    };
    summary.worst.iter().filter_map(&mut case).collect()
}

fn thumbnail(set: &PairSet, position: usize, side: Side) -> Option<Vec<u8>> {
    let image = set.image(position, side).ok()?;
    let (width, height) = image.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height));
    let small = if scale < 1.0 {
        let length = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        imageops::resize(&image, length(width), length(height), FilterType::Triangle)
    } else {
        image
    };
    let mut bytes = Cursor::new(Vec::new());
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 80)).ok()?;
    Some(bytes.into_inner())
}
