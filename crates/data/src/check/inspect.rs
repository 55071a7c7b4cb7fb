//! What is kept of one decoded image.

use std::time::{Duration, Instant};

use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{Rgb, RgbImage};
use tastemaker_store::in_full;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::budget::DECODED;
use crate::set::{PairSet, decode_with_orientation, needed};
use crate::{DataError, Side};

/// Side of the reduction that likeness is judged by.
const SIDE: u32 = 32;

/// Lines of pixels that are read in each of the parts, so that the reduction is cheap beside the decoder.
const LINES: usize = 8;

/// Largest mean difference of the reductions of images that look the same, of 255. One image compressed twice stays below 2.
const MAX_DIFFERENCE: f64 = 4.0;

/// Most bits of 64 that gradient hashes of images that look the same differ in: flat images with little in them are close by
/// their means alone.
const MAX_BITS: u32 = 6;

/// What is kept of one decoded image while its pair is checked.
pub struct Inspected {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Hash of size and pixels, never 0.
    pub pixels: u64,
    /// What EXIF asks for.
    pub orientation: Orientation,
    /// 32 x 32 means over equal parts.
    reduced: RgbImage,
}

impl Inspected {
    /// Decodes an image, and says how long that took. The inner error says what is wrong with the image.
    ///
    /// # Errors
    /// [`DataError`] if images cannot be had at all, for instance because a connection is cut.
    pub fn of(
        set: &PairSet,
        position: usize,
        side: Side,
    ) -> Result<(Result<Self, String>, Duration), DataError> {
        let encoded = match set.encoded(position, side) {
            Ok(encoded) => encoded,
            Err(error) => {
                let problem = error.skips().ok_or(error)?;
                return Ok((Err(problem), Duration::ZERO));
            }
        };
        let lease = match needed(&encoded) {
            Ok(bytes) => DECODED.take(bytes),
            Err(error) => return Ok((Err(in_full(&error)), Duration::ZERO)),
        };
        let began = Instant::now();
        let decoded = decode_with_orientation(&encoded);
        let decoding = began.elapsed();
        let inspected = decoded.map_err(|error| in_full(&error)).and_then(|(image, orientation)| {
            let (width, height) = image.dimensions();
            if width == 0 || height == 0 {
                return Err("an image without pixels".to_owned());
            }
            let seed = u64::from(width) << 32 | u64::from(height);
            let pixels = xxh3_64_with_seed(image.as_raw(), seed).max(1);
            Ok(Self { size: (width, height), pixels, orientation, reduced: reduced(&image) })
        });
        drop(lease);
        Ok((inspected, decoding))
    }

    /// How alike two images are that are not the same: the mean difference of their reductions, of 255. `None` if they do not
    /// look the same.
    pub fn likeness(&self, other: &Self) -> Option<f64> {
        let pairs = self.reduced.as_raw().iter().zip(other.reduced.as_raw());
        let difference: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = difference as f64 / f64::from(3 * SIDE * SIDE);
        if mean > MAX_DIFFERENCE {
            return None;
        }
        let bits = (gradient_hash(&self.reduced) ^ gradient_hash(&other.reduced)).count_ones();
        (bits <= MAX_BITS).then_some(mean)
    }
}

/// Whether each of 8 x 8 gray pixels of the reduced image is darker than its right neighbor, one bit each.
///
/// Source: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013.
fn gradient_hash(image: &RgbImage) -> u64 {
    let gray = imageops::resize(&imageops::grayscale(image), 9, 8, FilterType::Lanczos3);
    let bits = gray.as_raw().chunks_exact(9).flat_map(|row| row.windows(2).map(|two| two[0] < two[1]));
    bits.fold(0, |hash, bit| hash << 1 | u64::from(bit))
}

/// Hash of a caption without punctuation, case and doubled spaces; 0 for one without a letter or a digit.
pub fn caption_key(caption: &str) -> u64 {
    let mut plain = String::with_capacity(caption.len());
    for word in caption.split(|c: char| c.is_whitespace()) {
        let letters = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        let start = plain.len();
        plain.extend(letters);
        if plain.len() > start {
            plain.push(' ');
        }
    }
    if plain.is_empty() { 0 } else { xxh3_64(plain.as_bytes()).max(1) }
}

/// Means over the cells of a grid of equal parts, from a few lines of each.
fn reduced(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let cells = |length: u32| {
        (0..SIDE).map(move |i| {
            let edge = |i: u32| (u64::from(i) * u64::from(length) / u64::from(SIDE)) as usize;
            edge(i)..edge(i + 1).max(edge(i) + 1)
        })
    };
    let stride = 3 * width as usize;
    let raw = image.as_raw();
    let mut pixels = Vec::with_capacity((3 * SIDE * SIDE) as usize);
    let mut sums = vec![0u16; stride];
    for rows in cells(height) {
        sums.fill(0);
        let lines = rows.clone().step_by(rows.len().div_ceil(LINES));
        let n_lines = lines.len() as u64;
        for line in lines {
            let line = &raw[line * stride..(line + 1) * stride];
            // Eight bytes fit; without the check for overflow this is done many at a time.
            sums.iter_mut().zip(line).for_each(|(sum, byte)| *sum = sum.wrapping_add(u16::from(*byte)));
        }
        for columns in cells(width) {
            let n = n_lines * columns.len() as u64;
            let mut means = [0u64; 3];
            for pixel in sums[3 * columns.start..3 * columns.end].chunks_exact(3) {
                means.iter_mut().zip(pixel).for_each(|(mean, sum)| *mean += u64::from(*sum));
            }
            pixels.extend(means.map(|sum| ((sum + n / 2) / n) as u8));
        }
    }
    RgbImage::from_raw(SIDE, SIDE, pixels).unwrap_or_else(|| RgbImage::from_pixel(SIDE, SIDE, Rgb([0; 3])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_color_reduces_to_itself(width in 1u32..90, height in 1u32..90, color: [u8; 3]) {
            let small = reduced(&RgbImage::from_pixel(width, height, Rgb(color)));
            prop_assert_eq!(small.dimensions(), (SIDE, SIDE));
            prop_assert!(small.pixels().all(|pixel| pixel.0 == color));
        }
    }

    /// Source: image_hasher 3.1.1, `HashAlg::Gradient` of 8 x 8; its bytes in order, the lowest bit of each first.
    #[test]
    fn the_gradient_hash_is_that_of_image_hasher() {
        for (seed, hash) in [
            (0, 0xb649_926d_49db_b62d),
            (1, 0xb669_9224_6d5b_9225),
            (2, 0x922d_dbb6_a4c9_9226),
            (3, 0x3624_4ab2_244d_5a92),
            (50, 0xcced_c9cd_cdc9_d999),
            (199, 0x9469_b22c_28da_1665),
        ] {
            let image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
                let values = [x * 3 + seed * 7 + y * y, y * 5 + x * seed, (x ^ y) * 9 + seed * 31];
                Rgb(values.map(|value| (value * 77 % 256) as u8))
            });
            assert_eq!(gradient_hash(&image), hash, "{seed}");
        }
    }

    #[test]
    fn captions_are_one_but_for_punctuation_case_and_spaces() {
        let key = caption_key("A red fox, in snow");
        for same in ["a  red fox in snow.", "A RED FOX (in snow)", "\"a red\tfox — in snow\""] {
            assert_eq!(caption_key(same), key, "{same}");
        }
        for other in ["a red foxin snow", "a red fox", "a red fox in snow 2"] {
            assert_ne!(caption_key(other), key, "{other}");
        }
        assert_eq!((caption_key(""), caption_key(" ... "), caption_key("狐") == 0), (0, 0, false));
    }
}
