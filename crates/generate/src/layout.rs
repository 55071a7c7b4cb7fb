//! Blocks of color that say what goes where, as an image to start from.

use image::{Rgb, RgbImage, imageops};
use tastemaker_data::transform::{Crop, Size, resize_and_crop};

/// A rectangle of one color, in fractions of the image's width and height, counted from the left and from the top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Left, top, right and bottom edge, 0 to 1.
    pub edges: [f64; 4],
    /// Red, green, blue.
    pub color: [u8; 3],
}

/// An image of these blocks, later ones over earlier ones.
///
/// Source: strokes of SDEdit, arXiv 2108.01073, and the layouts of Diffusion-DPO, arXiv 2311.12908.
pub fn layout(size: Size, background: [u8; 3], blocks: &[Block]) -> RgbImage {
    let (width, height) = size;
    RgbImage::from_fn(width, height, |x, y| {
        let at = |pixel: u32, side: u32| (f64::from(pixel) + 0.5) / f64::from(side);
        let (x, y) = (at(x, width), at(y, height));
        let covers = |block: &&Block| {
            let [left, top, right, bottom] = block.edges;
            (left..right).contains(&x) && (top..bottom).contains(&y)
        };
        Rgb(blocks.iter().rev().find(covers).map_or(background, |block| block.color))
    })
}

/// An image cut and resized to another size. Few pixels, which are blocks of color, keep their edges; others are resized smoothly.
pub(crate) fn fitted(image: &RgbImage, size: Size) -> RgbImage {
    const BLOCKS: u32 = 8;
    let (width, height) = image.dimensions();
    if width * BLOCKS <= size.0 && height * BLOCKS <= size.1 {
        return imageops::resize(image, size.0, size.1, imageops::FilterType::Nearest);
    }
    resize_and_crop(image, size, Crop::Center)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_blocks_lie_over_earlier_ones() {
        let blocks = [
            Block { edges: [0.0, 0.5, 1.0, 1.0], color: [0, 90, 0] },
            Block { edges: [0.25, 0.25, 0.75, 0.75], color: [200, 0, 0] },
        ];
        let image = layout((4, 4), [0, 0, 255], &blocks);
        let of = |x, y| image.get_pixel(x, y).0;
        assert_eq!(
            [of(0, 0), of(0, 3), of(1, 1), of(2, 2)],
            [[0, 0, 255], [0, 90, 0], [200, 0, 0], [200, 0, 0]]
        );
    }

    #[test]
    fn a_few_pixels_become_blocks_and_images_are_cut() {
        let small = RgbImage::from_fn(2, 1, |x, _| Rgb([255 * x as u8; 3]));
        let blocks = fitted(&small, (32, 16));
        assert_eq!([blocks.get_pixel(15, 8).0[0], blocks.get_pixel(16, 8).0[0]], [0, 255]);
        let wide = RgbImage::from_fn(16, 8, |x, _| Rgb([if x < 4 { 255 } else { 0 }; 3]));
        assert!(fitted(&wide, (16, 16)).pixels().all(|pixel| pixel.0[0] < 128), "the sides are cut off");
    }
}
