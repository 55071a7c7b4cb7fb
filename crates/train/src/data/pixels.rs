//! From a pair of a source to the pixels that the VAE sees.

use image::{RgbImage, imageops};
use tastemaker_data::buckets::Frames;
use tastemaker_data::transform::{Crop, Framing, Size, framed};
use tastemaker_data::{DataError, Half, PairSource};

/// A pair's images as they are, and the frame they go into.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Winner and loser; the loser only if it was asked for and is another image.
    pub images: Vec<RgbImage>,
    /// Their frame.
    pub frame: Size,
}

/// How an image is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Which part is kept.
    pub crop: Crop,
    /// Whether it is flipped afterwards.
    pub flipped: bool,
}

impl Cut {
    /// The middle, as it is.
    pub const PLAIN: Self = Self { crop: Crop::Center, flipped: false };

    /// The pixels that are left.
    pub fn of(self, image: &RgbImage, frame: Size) -> RgbImage {
        let mut cut = framed(image, frame, self.crop);
        if self.flipped {
            imageops::flip_horizontal_in_place(&mut cut);
        }
        cut
    }
}

impl Seen {
    /// What SDXL is told about the pair besides the frame: height and width of the winner as stored, and the rows and columns
    /// cut off at its top and left.
    pub fn sizes(&self, crop: Crop) -> [u32; 4] {
        let (width, height) = self.images[0].dimensions();
        let Framing { left, top, .. } = Framing::of((width, height), self.frame, crop);
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
    frames: &Frames,
    halves: &[Half],
) -> Result<Seen, DataError> {
    let is_single = source.label(position).is_some();
    let halves = if is_single { &Half::BOTH[..1] } else { halves };
    let images: Vec<RgbImage> =
        halves.iter().map(|&half| source.image(position, half)).collect::<Result<_, _>>()?;
    let sizes = match images.as_slice() {
        [winner, loser] => (winner.dimensions(), loser.dimensions()),
        [image] if is_single => (image.dimensions(), image.dimensions()),
        _ if frames.buckets.is_none() => ((1, 1), (1, 1)),
        // The frame is the pair's, whoever is looked at.
        _ => (images[0].dimensions(), source.image(position, Half::Loser)?.dimensions()),
    };
    Ok(Seen { images, frame: frames.of(sizes.0, sizes.1) })
}
