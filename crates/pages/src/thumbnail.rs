//! Images made small enough to be carried by a page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as RowFilter, PngEncoder};
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, ImageError, RgbImage};

/// Longest side of an image on a page, in pixels.
const MAX_SIDE: u32 = 384;

/// Images up to this side stay as they are, in PNG: they are small, and JPEG would blur them.
const MAX_PNG_SIDE: u32 = 128;

const JPEG_QUALITY: u8 = 85;

/// An image as the bytes of a small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    kind: &'static str,
    bytes: Vec<u8>,
}

impl Thumbnail {
    /// Makes an image small enough. Equal images give equal bytes.
    ///
    /// # Errors
    /// If the image has no pixels.
    pub fn new(image: &RgbImage) -> Result<Self, ImageError> {
        let (width, height) = image.dimensions();
        let longest = width.max(height);
        if longest <= MAX_PNG_SIDE {
            return Ok(Self { kind: "image/png", bytes: png(image)? });
        }
        let side = |length: u32| (length * MAX_SIDE).div_ceil(longest).max(1);
        let shrunk =
            (longest > MAX_SIDE).then(|| resize(image, side(width), side(height), FilterType::Lanczos3));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .encode_image(shrunk.as_ref().unwrap_or(image))?;
        Ok(Self { kind: "image/jpeg", bytes })
    }

    /// Its media type.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The address that carries the image itself.
    pub fn address(&self) -> String {
        format!("data:{};base64,{}", self.kind, STANDARD.encode(&self.bytes))
    }
}

/// The smallest PNG file of an image. Equal images give equal bytes.
///
/// # Errors
/// If the image has no pixels.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, RowFilter::Adaptive).write_image(
        image.as_raw(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn large_images_shrink_and_small_ones_stay_exact() {
        let size = |width, height| {
            let thumbnail = Thumbnail::new(&RgbImage::from_pixel(width, height, Rgb([9, 80, 200]))).unwrap();
            let image = image::load_from_memory(&thumbnail.bytes).unwrap();
            (thumbnail.kind, image.width(), image.height())
        };
        assert_eq!(size(64, 64), ("image/png", 64, 64));
        assert_eq!(size(256, 200), ("image/jpeg", 256, 200));
        assert_eq!(size(1024, 768), ("image/jpeg", 384, 288));
    }
}
