//! From a pair of a source to the pixels that the VAE encodes.

use image::{RgbImage, imageops};
use tastemaker_data::buckets::BucketResolutions;
use tastemaker_data::transform::{Crop, ResizeCrop, Size, resize_and_crop};
use tastemaker_data::{DataError, Images, PairSource, Side};

/// A pair's images as they are, and their bucket resolution.
#[derive(Debug)]
pub(crate) struct DecodedPair {
    /// Winner and loser; the loser only if it was asked for and is another image.
    pub images: Images,
    /// Their bucket resolution.
    pub resolution: Size,
}

/// Which part of an image is kept, and which way round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CropFlip {
    /// Which part is kept.
    pub crop: Crop,
    /// Whether it is flipped afterwards.
    pub hflip: bool,
}

impl CropFlip {
    /// The middle, unflipped.
    pub const CENTER: Self = Self { crop: Crop::Center, hflip: false };

    /// The pixels that are kept.
    pub fn apply(self, image: &RgbImage, resolution: Size) -> RgbImage {
        let mut cropped = resize_and_crop(image, resolution, self.crop);
        if self.hflip {
            imageops::flip_horizontal_in_place(&mut cropped);
        }
        cropped
    }
}

impl DecodedPair {
    /// SDXL's micro-conditioning besides the resolution: height and width of the winner as stored, and the rows and columns cropped
    /// off at its top and left.
    pub fn sizes(&self, crop: Crop) -> [u32; 4] {
        let (width, height) = self.images[0].dimensions();
        let ResizeCrop { left, top, .. } = ResizeCrop::of((width, height), self.resolution, crop);
        [height, width, top, left]
    }
}

/// Decodes the pair at a position; a single image once.
///
/// # Errors
/// [`DataError`] for an image that cannot be read.
pub(crate) fn decode_pair(
    source: &dyn PairSource,
    position: usize,
    resolutions: &BucketResolutions,
    sides: &[Side],
) -> Result<DecodedPair, DataError> {
    let is_single = source.label(position).is_some();
    let sides = if is_single { &Side::BOTH[..1] } else { sides };
    // The resolution is the pair's, whichever side is asked for.
    let is_one_of_two = !is_single && sides.len() == 1 && resolutions.buckets.is_some();
    let decoded = if is_one_of_two { &Side::BOTH } else { sides };
    let mut images = source.images(position, decoded)?;
    let sizes = match &images[..] {
        [winner, loser] => (winner.dimensions(), loser.dimensions()),
        [image] if is_single => (image.dimensions(), image.dimensions()),
        _ => ((1, 1), (1, 1)),
    };
    if is_one_of_two {
        images.keep(sides[0]);
    }
    Ok(DecodedPair { images, resolution: resolutions.of(sizes.0, sizes.1) })
}
