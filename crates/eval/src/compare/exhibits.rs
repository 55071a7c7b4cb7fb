//! The images a page shows, made small enough to be carried by it.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::EvalError;
use crate::report::Image;

/// Longest side of an image on the page, in pixels.
const MAX_SIDE: u32 = 384;

/// Images up to this side stay as they are, in PNG: they are small, and JPEG would blur them.
const MAX_PNG_SIDE: u32 = 128;

/// Quality of the others.
const JPEG_QUALITY: u8 = 85;

/// One sample with what every model generated for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhibit {
    /// Index of the sample.
    pub sample: usize,
    /// Why it is shown.
    pub choice: Choice,
    /// The images, by model.
    pub images: Vec<Thumb>,
}

/// Why a sample is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// One of every so many, whatever it looks like.
    Spread,
    /// One of those where the last model gains most on the first.
    Gain,
    /// One of those where it loses most.
    Loss,
}

/// An image as the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumb {
    /// `image/png` or `image/jpeg`.
    pub kind: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Thumb {
    /// Makes an image small enough. Equal images give equal bytes.
    ///
    /// # Errors
    /// If the image has no pixels.
    pub fn new(image: &RgbImage) -> Result<Self, EvalError> {
        let (width, height) = image.dimensions();
        let longest = width.max(height);
        if longest <= MAX_PNG_SIDE {
            return Ok(Self { kind: "image/png", bytes: Image::new(image)?.png });
        }
        let shrunk;
        let image = if longest > MAX_SIDE {
            let side = |length: u32| (length * MAX_SIDE).div_ceil(longest).max(1);
            shrunk = resize(image, side(width), side(height), FilterType::Lanczos3);
            &shrunk
        } else {
            image
        };
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(
            image.as_raw(),
            image.width(),
            image.height(),
            ExtendedColorType::Rgb8,
        )?;
        Ok(Self { kind: "image/jpeg", bytes })
    }
}

/// Which of the samples with these score differences to show, at most `n`: half spread evenly over all, a quarter where the
/// difference is greatest, a quarter where it is least. In the order of the samples.
pub fn choose(differences: &[f64], n: usize) -> Vec<(usize, Choice)> {
    let n_samples = differences.len();
    if n >= n_samples {
        return (0..n_samples).map(|sample| (sample, Choice::Spread)).collect();
    }
    let n_extreme = n / 4;
    let n_spread = n - 2 * n_extreme;
    let mut chosen: Vec<(usize, Choice)> =
        (0..n_spread).map(|k| (k * n_samples / n_spread, Choice::Spread)).collect();
    let mut ranked: Vec<usize> = (0..n_samples).collect();
    ranked.sort_by(|&a, &b| differences[b].total_cmp(&differences[a]));
    ranked.retain(|sample| chosen.iter().all(|(spread, _)| spread != sample));
    chosen.extend(ranked.iter().take(n_extreme).map(|&sample| (sample, Choice::Gain)));
    chosen.extend(ranked.iter().skip(n_extreme).rev().take(n_extreme).map(|&sample| (sample, Choice::Loss)));
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn half_are_spread_and_the_rest_are_extremes() {
        let differences: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 40)).collect();
        let chosen = choose(&differences, 8);
        let of = |choice: Choice| -> Vec<usize> {
            chosen.iter().filter(|(_, why)| *why == choice).map(|(sample, _)| *sample).collect()
        };
        assert_eq!(of(Choice::Spread), [0, 10, 20, 30]);
        let value = |samples: Vec<usize>| samples.iter().map(|&q| differences[q]).collect::<Vec<_>>();
        assert_eq!((value(of(Choice::Gain)), value(of(Choice::Loss))), (vec![39.0, 38.0], vec![2.0, 1.0]));
        assert!(chosen.is_sorted() && chosen.len() == 8);
    }

    #[test]
    fn few_samples_are_all_shown() {
        assert_eq!(choose(&[1.0, 2.0, 3.0], 8).len(), 3);
        assert_eq!(choose(&[1.0, 2.0, 3.0, 4.0], 1), [(0, Choice::Spread)]);
        assert_eq!(choose(&[1.0], 0), []);
    }

    #[test]
    fn large_images_shrink_and_small_ones_stay_exact() {
        let thumb =
            |width, height| Thumb::new(&RgbImage::from_pixel(width, height, Rgb([9, 80, 200]))).unwrap();
        let size = |thumb: &Thumb| {
            let image = image::load_from_memory(&thumb.bytes).unwrap();
            (thumb.kind, image.width(), image.height())
        };
        assert_eq!(size(&thumb(64, 64)), ("image/png", 64, 64));
        assert_eq!(size(&thumb(256, 200)), ("image/jpeg", 256, 200));
        assert_eq!(size(&thumb(1024, 768)), ("image/jpeg", 384, 288));
    }
}
