//! From an image of any size to the numbers that networks see, and back.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use image::imageops;

use crate::DataError;

/// Width and height in pixels.
pub type Size = (u32, u32);

/// Which part of an image is kept when it is cut to another aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    /// The middle.
    Center,
    /// The part at these fractions, each in `[0, 1)`, of the columns and of the rows that it can be moved by.
    At(f64, f64),
}

/// How [`resize_and_crop`] resizes and crops an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizeCrop {
    /// Width after resizing.
    pub width: u32,
    /// Height after resizing.
    pub height: u32,
    /// Columns cut off on the left, after resizing.
    pub left: u32,
    /// Rows cut off at the top, after resizing.
    pub top: u32,
}

impl ResizeCrop {
    /// For an image of one size and a target of another: it is resized so that it just covers the target, and the rest is
    /// cut off.
    ///
    /// # Panics
    /// If the image or the target is empty.
    pub fn of((width, height): Size, target: Size, crop: Crop) -> Self {
        assert!(width.min(height).min(target.0).min(target.1) > 0, "{width} x {height} to {target:?}");
        let scaled =
            |side: u32, to: u32, from: u32| (u64::from(to) * u64::from(side) / u64::from(from)) as u32;
        let by_width = u64::from(target.0) * u64::from(height) >= u64::from(target.1) * u64::from(width);
        let (width, height) = if by_width {
            (target.0, scaled(height, target.0, width))
        } else {
            (scaled(width, target.1, height), target.1)
        };
        let (columns, rows) = (width - target.0, height - target.1);
        let (left, top) = match crop {
            Crop::Center => (half_to_even(columns), half_to_even(rows)),
            Crop::At(across, down) => {
                let part = |fraction: f64, n: u32| ((fraction * f64::from(n + 1)) as u32).min(n);
                (part(across, columns), part(down, rows))
            }
        };
        Self { width, height, left, top }
    }
}

/// Resizes so that the image just covers the target, then crops it to the target. The aspect ratio is kept:
/// winner and loser are never stretched to one another's shape.
///
/// The filter is the triangle whose width grows with the reduction (Pillow's antialiased bilinear); the
/// longer side is rounded down and the offset of a middle crop rounded half to even.
///
/// Source: torchvision `Resize`, `CenterCrop` and `RandomCrop`, as the DPO scripts apply them to squares. Values are Pillow's
/// within one rounding step.
///
/// # Panics
/// If the image or the target is empty.
pub fn resize_and_crop(image: &RgbImage, target: Size, crop: Crop) -> RgbImage {
    let ResizeCrop { width, height, left, top } = ResizeCrop::of(image.dimensions(), target, crop);
    // Cut before resizing is not the same at the edges, so resize whole, but only if there is something to do.
    let resized;
    let resized = if (width, height) == image.dimensions() {
        image
    } else {
        resized = resize(image, width, height);
        &resized
    };
    imageops::crop_imm(resized, left, top, target.0, target.1).to_image()
}

fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let mut resized = RgbImage::new(width, height);
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw());
    let mut target =
        TypedImage::<U8x3>::from_buffer(width, height, &mut resized).expect("three bytes a pixel");
    let bilinear =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    // Not `resize`, which compiles the code of all thirteen types of pixels: three minutes.
    Resizer::new()
        .resize_typed(&source.expect("three bytes a pixel"), &mut target, &bilinear)
        .expect("neither image is cropped");
    drop(target);
    resized
}

/// Numbers as pixels, -1 for black and 1 for full intensity, clamped to what 8 bits can show and rounded to the nearest.
///
/// # Shapes
/// `[3, height, width]`, row-major.
///
/// # Errors
/// [`DataError::PixelCount`] if the values do not fill the shape, [`DataError::NonFinitePixel`] for NaN or
/// infinity.
pub fn to_rgb(chw: &[f32], width: u32, height: u32) -> Result<RgbImage, DataError> {
    let area = width as usize * height as usize;
    if chw.len() != 3 * area {
        return Err(DataError::PixelCount { found: chw.len(), width, height });
    }
    if let Some(index) = chw.iter().position(|value| !value.is_finite()) {
        return Err(DataError::NonFinitePixel { index, value: chw[index] });
    }
    let byte = |value: f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    Ok(RgbImage::from_fn(width, height, |x, y| {
        let at = (y * width + x) as usize;
        image::Rgb([0, 1, 2].map(|channel| byte(chw[channel * area + at])))
    }))
}

/// `n / 2`, the half rounded to the even neighbor.
fn half_to_even(n: u32) -> u32 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_square_has_the_asked_size(width in 1u32..40, height in 1u32..40, resolution in 1u32..40) {
            let square = resize_and_crop(&RgbImage::new(width, height), (resolution, resolution), Crop::Center);
            prop_assert_eq!(square.dimensions(), (resolution, resolution));
        }

        #[test]
        fn the_target_is_covered_just_so(size in (1u32..90, 1u32..90), target in (1u32..90, 1u32..90), across in 0.0..1.0, down in 0.0..1.0) {
            let ResizeCrop { width, height, left, top } = ResizeCrop::of(size, target, Crop::At(across, down));
            prop_assert!(width == target.0 || height == target.1);
            prop_assert!(left + target.0 <= width && top + target.1 <= height);
        }

        #[test]
        fn one_color_stays_one_color(width in 1u32..40, height in 1u32..40, resolution in 1u32..40, color: [u8; 3]) {
            let square = resize_and_crop(&RgbImage::from_pixel(width, height, image::Rgb(color)), (resolution, resolution), Crop::Center);
            prop_assert!(square.pixels().all(|pixel| pixel.0 == color));
        }

        #[test]
        fn pixels_survive_the_way_there_and_back(width in 1u32..9, height in 1u32..9, bytes in prop::collection::vec(any::<u8>(), 192)) {
            let image = RgbImage::from_fn(width, height, |x, y| {
                let at = 3 * (y * width + x) as usize;
                image::Rgb([bytes[at], bytes[at + 1], bytes[at + 2]])
            });
            let channel = |channel| image.as_raw().iter().skip(channel).step_by(3);
            let chw: Vec<f32> = (0..3).flat_map(channel).map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
            prop_assert_eq!(to_rgb(&chw, width, height).unwrap(), image);
        }
    }

    #[test]
    fn a_square_of_the_right_size_is_untouched() {
        let image = test_card();
        let square = imageops::crop_imm(&image, 0, 0, 5, 5).to_image();
        assert_eq!(resize_and_crop(&square, (5, 5), Crop::Center), square);
    }

    #[test]
    fn the_crop_is_the_middle_with_halves_to_even() {
        // 7 x 5: one column goes on each side
        let square = resize_and_crop(&test_card(), (5, 5), Crop::Center);
        assert_eq!(square.get_pixel(0, 0), test_card().get_pixel(1, 0));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn values_beyond_the_range_are_clamped() {
        let image = to_rgb(&[-3.0, 0.0, 3.0], 1, 1).unwrap();
        assert_eq!(image.get_pixel(0, 0).0, [0, 128, 255]);
    }

    #[test]
    fn nan_is_an_error_and_not_black() {
        assert!(matches!(
            to_rgb(&[0.0, f32::NAN, 0.0], 1, 1),
            Err(DataError::NonFinitePixel { index: 1, .. })
        ));
    }

    #[test]
    fn a_wrong_count_of_values_is_an_error() {
        let error = to_rgb(&[0.0; 5], 1, 2).unwrap_err();
        assert_eq!(error.to_string(), "5 values for an image of 1 x 2; wanted 6");
    }

    /// 7 x 5 pixels with a different gradient in each channel.
    fn test_card() -> RgbImage {
        RgbImage::from_fn(7, 5, |x, y| {
            let (x, y) = (x as i32, y as i32);
            image::Rgb(
                [x * 37 + y * 11, x * x * 5 + y * 53, 255 - x * 20 - y * y * 3]
                    .map(|v| v.rem_euclid(256) as u8),
            )
        })
    }

    /// The middle 3 x 3 of the test card reduced to 4 x 3: Pillow 12, `Image.resize((4, 3), BILINEAR)`.
    const REDUCED: [u8; 27] = [
        24, 26, 244, 82, 47, 212, 150, 102, 176, //
        41, 109, 232, 99, 130, 200, 167, 174, 164, //
        58, 192, 206, 116, 172, 174, 184, 100, 138,
    ];

    #[test]
    fn reducing_agrees_with_pillow_within_one() {
        let ours = resize_and_crop(&test_card(), (3, 3), Crop::Center);
        for (i, (ours, theirs)) in ours.as_raw().iter().zip(REDUCED).enumerate() {
            assert!(ours.abs_diff(theirs) <= 1, "value {i}: {ours} for {theirs}");
        }
    }
}
