//! How far the judge itself can be trusted: it reads real art that was disturbed, and must still name it.

use super::nearest_art::{Artwork, Judge};
use crate::DemoError;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage, imageops};
use serde::Serialize;
use tastemaker_math::{Keyed, Stream};

/// One way to disturb an image without changing what it shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
    /// The image as it is.
    None,
    /// Gaussian blur.
    Blur {
        /// Standard deviation in pixels.
        sigma: f32,
    },
    /// Independent Gaussian noise on every value.
    Noise {
        /// Standard deviation in 8-bit steps.
        sigma: f32,
    },
    /// Shift; the uncovered edge repeats.
    Shift {
        /// To the right, in pixels.
        x: i32,
        /// Downwards, in pixels.
        y: i32,
    },
    /// JPEG compression.
    Jpeg {
        /// Quality from 1 to 100.
        quality: u8,
    },
    /// Down to a fraction of the size and up again: what a small autoencoder does to fine detail.
    Coarse {
        /// Factor by which the side shrinks.
        factor: u32,
    },
    /// Red and blue pulled apart, contrast lowered.
    Tint {
        /// Strength in 8-bit steps.
        steps: f32,
    },
    /// A shift, half resolution, noise, a cast and JPEG, one after the other.
    Everything,
}

/// The disturbances of the standard self-check, with the names reports print.
pub const DISTURBANCES: [(&str, Disturbance); 9] = [
    ("undisturbed", Disturbance::None),
    ("blur, 1 px", Disturbance::Blur { sigma: 1.0 }),
    ("noise, 12 of 255", Disturbance::Noise { sigma: 12.0 }),
    ("shift, 1 px", Disturbance::Shift { x: 1, y: 1 }),
    ("shift, 2 px", Disturbance::Shift { x: -2, y: 1 }),
    ("JPEG, quality 40", Disturbance::Jpeg { quality: 40 }),
    ("half resolution", Disturbance::Coarse { factor: 2 }),
    ("color cast", Disturbance::Tint { steps: 16.0 }),
    ("all at once", Disturbance::Everything),
];

impl Disturbance {
    /// The disturbed image. Noise depends on `index`, the image's number, and nothing else.
    ///
    /// # Errors
    /// If the JPEG coder refuses the image.
    pub fn apply(self, image: &RgbImage, index: u64) -> Result<RgbImage, DemoError> {
        let (width, height) = image.dimensions();
        Ok(match self {
            Self::None => image.clone(),
            Self::Blur { sigma } => imageops::blur(image, sigma),
            Self::Noise { sigma } => {
                let mut noise = Keyed::new(0, Stream::Data, index, 0);
                let mut noisy = image.clone();
                for value in noisy.iter_mut() {
                    *value = to_byte(f32::from(*value) + sigma * noise.normal() as f32);
                }
                noisy
            }
            Self::Shift { x, y } => RgbImage::from_fn(width, height, |to_x, to_y| {
                let from = |to: u32, by: i32, size: u32| (to as i32 - by).clamp(0, size as i32 - 1) as u32;
                *image.get_pixel(from(to_x, x, width), from(to_y, y, height))
            }),
            Self::Jpeg { quality } => {
                let mut bytes = Vec::new();
                JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image)?;
                image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)?.into_rgb8()
            }
            Self::Coarse { factor } => {
                let (small_width, small_height) = ((width / factor).max(1), (height / factor).max(1));
                let small =
                    imageops::resize(image, small_width, small_height, imageops::FilterType::Triangle);
                imageops::resize(&small, width, height, imageops::FilterType::Triangle)
            }
            Self::Tint { steps } => {
                let mut tinted = image.clone();
                for Rgb([r, g, b]) in tinted.pixels_mut() {
                    let flatter = |value: u8| 128.0 + (f32::from(value) - 128.0) * (1.0 - steps / 256.0);
                    *r = to_byte(flatter(*r) + steps / 2.0);
                    *g = to_byte(flatter(*g));
                    *b = to_byte(flatter(*b) - steps / 2.0);
                }
                tinted
            }
            Self::Everything => {
                let chain = [
                    Self::Shift { x: 1, y: -1 },
                    Self::Coarse { factor: 2 },
                    Self::Noise { sigma: 12.0 },
                    Self::Tint { steps: 16.0 },
                    Self::Jpeg { quality: 40 },
                ];
                let mut disturbed = image.clone();
                for link in chain {
                    disturbed = link.apply(&disturbed, index)?;
                }
                disturbed
            }
        })
    }
}

fn to_byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// Accuracy of the judge under one disturbance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckRow {
    /// Name of the disturbance.
    pub disturbance: String,
    /// Number of artworks tried.
    pub n: usize,
    /// Fraction whose caption was named, in any style.
    pub caption_accuracy: f64,
    /// Fraction whose style was named.
    pub style_accuracy: f64,
}

/// Lets the judge read every `stride`-th artwork of the gallery under each of [`DISTURBANCES`].
///
/// # Errors
/// An empty gallery, or an image that cannot be disturbed.
pub fn self_check(judge: &Judge, gallery: &[Artwork], stride: usize) -> Result<Vec<CheckRow>, DemoError> {
    if gallery.is_empty() {
        return Err(DemoError::EmptyGallery);
    }
    let tried: Vec<(usize, &Artwork)> = gallery.iter().enumerate().step_by(stride.max(1)).collect();
    let check = |(name, disturbance): &(&str, Disturbance)| {
        let (mut captions, mut styles) = (0, 0);
        for &(index, artwork) in &tried {
            let reading = judge.read(&disturbance.apply(&artwork.image, index as u64)?);
            captions += usize::from(reading.caption_correct(artwork.caption));
            styles += usize::from(reading.style == artwork.style);
        }
        let fraction = |count: usize| count as f64 / tried.len() as f64;
        Ok(CheckRow {
            disturbance: (*name).to_owned(),
            n: tried.len(),
            caption_accuracy: fraction(captions),
            style_accuracy: fraction(styles),
        })
    };
    DISTURBANCES.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::art::Art;

    #[test]
    fn disturbed_real_art_is_still_recognized() {
        let art = Art::open().unwrap();
        let gallery = art.gallery();
        let judge = Judge::new(&gallery, art.captions.len(), 4).unwrap();
        for row in self_check(&judge, &gallery, 17).unwrap() {
            assert!(row.caption_accuracy >= 0.97 && row.style_accuracy >= 0.97, "{row:?}");
        }
    }

    #[test]
    fn disturbances_disturb_and_repeat_exactly() {
        let image = &Art::open().unwrap().image(0, 3);
        for (name, disturbance) in DISTURBANCES.into_iter().skip(1) {
            let disturbed = disturbance.apply(image, 5).unwrap();
            assert_ne!(&disturbed, image, "{name}");
            assert_eq!(disturbed, disturbance.apply(image, 5).unwrap(), "{name}");
            assert_eq!(disturbed.dimensions(), image.dimensions(), "{name}");
        }
    }
}
