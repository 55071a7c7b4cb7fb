//! From a pair of a source to the pixels that the VAE sees.

use image::{RgbImage, imageops};
use tastemaker_data::buckets::BucketResolutions;
use tastemaker_data::transform::{Crop, ResizeCrop, Size, resize_and_crop};
use tastemaker_data::{DataError, PairSource, Side};

/// A pair's images as they are, and the bucket resolution they go into.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Winner and loser; the loser only if it was asked for and is another image.
    pub images: Vec<RgbImage>,
    /// Their resolution.
    pub resolution: Size,
}

/// How an image is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Which part is kept.
    pub crop: Crop,
    /// Whether it is flipped afterwards.
    pub hflip: bool,
}

impl Cut {
    /// The middle, as it is.
    pub const PLAIN: Self = Self { crop: Crop::Center, hflip: false };

    /// The pixels that are left.
    pub fn of(self, image: &RgbImage, resolution: Size) -> RgbImage {
        let mut cut = resize_and_crop(image, resolution, self.crop);
        if self.hflip {
            imageops::flip_horizontal_in_place(&mut cut);
        }
        cut
    }
}

impl Seen {
    /// SDXL's micro-conditioning besides the resolution: height and width of the winner as stored, and the rows and columns
    /// cut off at its top and left.
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
pub(crate) fn see(
    source: &dyn PairSource,
    position: usize,
    resolutions: &BucketResolutions,
    sides: &[Side],
) -> Result<Seen, DataError> {
    let is_single = source.label(position).is_some();
    let sides = if is_single { &Side::BOTH[..1] } else { sides };
    let images: Vec<RgbImage> =
        sides.iter().map(|&side| source.image(position, side)).collect::<Result<_, _>>()?;
    let sizes = match images.as_slice() {
        [winner, loser] => (winner.dimensions(), loser.dimensions()),
        [image] if is_single => (image.dimensions(), image.dimensions()),
        _ if resolutions.buckets.is_none() => ((1, 1), (1, 1)),
        // The resolution is the pair's, whichever side is wanted.
        _ => (images[0].dimensions(), source.image(position, Side::Loser)?.dimensions()),
    };
    Ok(Seen { images, resolution: resolutions.of(sizes.0, sizes.1) })
}
