//! From images to what an image tower sees.

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use super::pillow::resize;
use crate::EvalError;

/// Mean of each channel over CLIP's training images; black is 0, full intensity 1.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Standard deviation of each channel.
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Images whose sides differ by more than this factor are refused: what is cut off would be gigabytes.
const LONGEST: u32 = 64;

/// How an image of any shape becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The shorter side becomes the square's, as Pillow resizes bytes, and the middle is cut out, an odd pixel going to the
    /// right and to the bottom: `CLIPImageProcessor` of transformers.
    Cut,
    /// The same, halves of a pixel going to the even neighbor: `Resize` and `CenterCrop` of torchvision, as OpenAI's and
    /// ImageReward's code has them.
    CutToEven,
    /// The longer side becomes the square's, resized as numbers with antialiasing, and the rest is black: HPS v2.
    Pad,
}

/// How images become pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transform {
    /// How they become squares.
    pub fit: Fit,
    /// Side of the square.
    pub side: u32,
}

impl Transform {
    /// What the network sees.
    ///
    /// # Shapes
    /// `[n, 3, side, side]`, f32.
    ///
    /// # Errors
    /// [`EvalError::ImageShape`] for an image too thin to be seen.
    pub fn pixels(self, images: &[&RgbImage]) -> Result<Tensor, EvalError> {
        let squares = images.iter().enumerate().map(|(item, image)| {
            let (width, height) = image.dimensions();
            if width.min(height) == 0 || width.max(height) / width.min(height) > LONGEST {
                return Err(EvalError::ImageShape { item, width, height, longest: LONGEST });
            }
            match self.fit {
                Fit::Cut => Ok(self.cut(image, |spare| spare / 2)),
                Fit::CutToEven => Ok(self.cut(image, half_to_even)),
                Fit::Pad => Ok(self.padded(image)),
            }
        });
        let squares = squares.collect::<Result<Vec<_>, _>>()?;
        let channel = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]);
        Ok((Tensor::stack(&squares, 0) - channel(MEAN)) / channel(STD))
    }

    fn cut(self, image: &RgbImage, before: impl Fn(u32) -> u32) -> Tensor {
        let (width, height) = image.dimensions();
        let (short, long) = (width.min(height), width.max(height));
        let longer = (u64::from(self.side) * u64::from(long) / u64::from(short)) as u32;
        let (wide, high) = if width <= height { (self.side, longer) } else { (longer, self.side) };
        let resized = resize(image, wide, high);
        let (left, top) = (before(wide - self.side), before(high - self.side));
        numbers(&image::imageops::crop_imm(&resized, left, top, self.side, self.side).to_image())
    }

    fn padded(self, image: &RgbImage) -> Tensor {
        let (width, height) = image.dimensions();
        let scale = f64::from(self.side) / f64::from(width.max(height));
        // Only the shorter side can round to nothing, and only in an image that is refused.
        let size = |side: u32| ((f64::from(side) * scale).round_ties_even() as i64).max(1);
        let (wide, high) = (size(width), size(height));
        let mut image = numbers(image);
        if scale != 1.0 {
            let resized = image.unsqueeze(0).internal_upsample_bicubic2d_aa([high, wide], false, None, None);
            image = resized.squeeze_dim(0);
        }
        let side = i64::from(self.side);
        let (left, top) = ((side - wide) / 2, (side - high) / 2);
        let sides = [left, side - wide - left, top, side - high - top];
        image.constant_pad_nd(sides)
    }
}

/// # Shapes
/// `[3, height, width]`, 0 black and 1 full intensity.
fn numbers(image: &RgbImage) -> Tensor {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    let bytes = Tensor::from_data_size(image.as_raw(), &[height, width, 3], Kind::Uint8);
    bytes.permute([2, 0, 1]).contiguous().to_device(Device::Cpu).to_kind(Kind::Float) / 255.0
}

/// `n / 2`, the half rounded to the even neighbor.
fn half_to_even(n: u32) -> u32 {
    n / 2 + (n % 2) * (n / 2 % 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    const SIDE: u32 = 8;

    fn seen(fit: Fit, image: &RgbImage) -> Tensor {
        Transform { fit, side: SIDE }.pixels(&[image]).unwrap()
    }

    #[test]
    fn black_beside_a_padded_image_is_black_after_normalizing() {
        let white = RgbImage::from_pixel(20, 10, Rgb([255; 3]));
        let pixels = seen(Fit::Pad, &white);
        let at = |y: i64| f64::from(pixels.double_value(&[0, 0, y, 3]) as f32);
        let black = f64::from(-MEAN[0] / STD[0]);
        assert!((at(0) - black).abs() < 1e-6 && (at(7) - black).abs() < 1e-6);
        assert!(at(2) > 1.9 && at(5) > 1.9);
    }

    #[test]
    fn the_two_cuts_differ_where_three_pixels_are_too_many() {
        // Eleven columns on eight: one or two of the spare three come off the left.
        let image = RgbImage::from_fn(11, 8, |x, _| Rgb([(x * 20) as u8; 3]));
        let (cut, even) = (seen(Fit::Cut, &image), seen(Fit::CutToEven, &image));
        assert!(cut.narrow(3, 1, 7).equal(&even.narrow(3, 0, 7)));
        assert!(seen(Fit::Cut, &RgbImage::new(9, 8)).equal(&seen(Fit::CutToEven, &RgbImage::new(9, 8))));
    }

    #[test]
    fn an_image_like_a_thread_is_refused() {
        let error = Transform { fit: Fit::Cut, side: SIDE }.pixels(&[&RgbImage::new(4000, 2)]).unwrap_err();
        assert!(error.to_string().contains("4000 x 2"), "{error}");
    }
}
