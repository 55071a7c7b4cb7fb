//! From an encoded image to pixels: those that Pillow's `convert("RGB")` gives, which the field trains on.

mod jpeg;

use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageReader, Limits, Pixel, RgbImage};

use tastemaker_store::StoreError;
use tastemaker_store::tree::{LocalFile, READ_KINDS, kind_of, read_whole};

use self::jpeg::{Jpeg, is_jpeg};
use crate::budget::DECODED;
use crate::transform::Size;

/// Revision of [`decode`]: what was encoded from its pixels before is not what would be now. The second decodes JPEG as
/// libjpeg-turbo does and narrows 16 bits as Pillow does; what was computed before it names none.
pub const DECODER: u32 = 2;

/// Bytes of an image that [`decodes_as_ever`] asks for.
pub(crate) const HEAD: usize = 26;

/// Whether all revisions of [`decode`] give an image that begins so the same pixels.
pub(crate) fn decodes_as_ever(head: &[u8]) -> bool {
    let is_png = head.starts_with(b"\x89PNG");
    // Depth in the first chunk.
    head.starts_with(b"RIFF") || is_png && head.get(24).is_some_and(|depth| *depth <= 8)
}

/// The longest encoded image that is read.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// The longest side of an image; a few kilobytes can claim to be of many gigabytes.
const MAX_SIDE: u32 = 16_384;

/// The bytes of an image that is a file.
///
/// # Errors
/// [`StoreError`] for one that cannot be read, or is longer than 256 MiB.
pub fn read_encoded(path: &Path) -> Result<Vec<u8>, StoreError> {
    read_whole(&LocalFile::open(path)?, MAX_IMAGE_BYTES)
}

/// Decodes to RGB, whatever the file is called. An alpha channel is dropped, and so is what EXIF says about the way up and what a
/// profile says about colors.
///
/// # Errors
/// [`ImageError`], also for an image that claims more than 16,384 pixels a side or takes more than [`DECODED`] has, and for a JPEG
/// file that ends before its image does.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let _lease = DECODED.take(needed(bytes)?);
    decode_leased(bytes)
}

/// What decoding an image takes, in bytes.
///
/// # Errors
/// [`ImageError`] for what is no image, and for one that takes more than [`DECODED`] has.
pub(crate) fn needed(bytes: &[u8]) -> Result<u64, ImageError> {
    let needed = guarded(|| Ok(Encoded::open(bytes)?.bytes()))?;
    if needed > DECODED.bytes() {
        let (needed, most) = (needed.div_ceil(1 << 20), DECODED.bytes() >> 20);
        let problem = format!("it takes {needed} MiB to decode; wanted at most {most}");
        return Err(io::Error::other(problem).into());
    }
    Ok(needed)
}

/// [`decode`] for whoever took what is [`needed`] already.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_leased(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    guarded(|| Encoded::open(bytes)?.decode())
}

/// [`decode_leased`], and the way up that EXIF asks for.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_with_orientation(bytes: &[u8]) -> Result<(RgbImage, Orientation), ImageError> {
    guarded(|| {
        let mut encoded = Encoded::open(bytes)?;
        let orientation = encoded.orientation();
        Ok((encoded.decode()?, orientation))
    })
}

/// An image whose header was read.
enum Encoded<'a> {
    Jpeg(Box<Jpeg<'a>>),
    Other {
        decoder: Box<dyn ImageDecoder + 'a>,
        /// Whether it is PNG of one gray channel of 16 bits, whatever the decoder makes of a color that is transparent.
        is_wide_gray: bool,
    },
}

impl<'a> Encoded<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let encoded =
            if is_jpeg(bytes) { Self::Jpeg(Box::new(Jpeg::open(bytes)?)) } else { Self::other(bytes)? };
        let (width, height) = encoded.size();
        if width.max(height) > MAX_SIDE {
            let problem = format!("{width} x {height} pixels; wanted at most {MAX_SIDE} a side");
            return Err(io::Error::other(problem).into());
        }
        Ok(encoded)
    }

    fn other(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(io::Error::other("the file is empty").into());
        }
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODED.bytes());
        reader.limits(limits.clone());
        let unreadable = || {
            let found = kind_of(bytes).unwrap_or("no image of a kind we know");
            ImageError::from(io::Error::other(format!("{found}; wanted {READ_KINDS}")))
        };
        let mut decoder = reader.into_decoder().map_err(|error| match error {
            ImageError::Unsupported(_) => unreadable(),
            error => error,
        })?;
        decoder.set_limits(limits)?;
        // Depth and kind of color in the first chunk.
        let is_wide_gray = bytes.starts_with(b"\x89PNG") && bytes.get(24..26) == Some(&[16, 0]);
        Ok(Self::Other { decoder: Box::new(decoder), is_wide_gray })
    }

    fn size(&self) -> Size {
        match self {
            Self::Jpeg(jpeg) => jpeg.size(),
            Self::Other { decoder, .. } => decoder.dimensions(),
        }
    }

    /// What decoding takes: the pixels, those of the file's own kind, and what decoders unpack beside them.
    fn bytes(&self) -> u64 {
        let (width, height) = self.size();
        let n_pixels = u64::from(width) * u64::from(height);
        match self {
            Self::Jpeg(jpeg) => jpeg.bytes_per_pixel() * n_pixels,
            Self::Other { decoder, .. } => 3 * n_pixels + decoder.total_bytes().saturating_mul(2),
        }
    }

    fn orientation(&mut self) -> Orientation {
        match self {
            Self::Jpeg(jpeg) => jpeg.orientation(),
            // Metadata that cannot be read says nothing; the pixels count.
            Self::Other { decoder, .. } => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        }
    }

    fn decode(self) -> Result<RgbImage, ImageError> {
        let (decoder, is_wide_gray) = match self {
            Self::Jpeg(jpeg) => return jpeg.decode(),
            Self::Other { decoder, is_wide_gray } => (decoder, is_wide_gray),
        };
        // Pillow cuts 16 bits of gray off at 255, and takes the high byte of others.
        let high = |value: u16| (value >> 8) as u8;
        let low = |value: u16| value.min(255) as u8;
        let gray = |value: u16| [if is_wide_gray { low(value) } else { high(value) }; 3];
        Ok(match DynamicImage::from_decoder(decoder)? {
            DynamicImage::ImageLuma16(image) => map(&image, |[value]: &[u16; 1]| gray(*value)),
            DynamicImage::ImageLumaA16(image) => map(&image, |[value, _]: &[u16; 2]| gray(*value)),
            DynamicImage::ImageRgb16(image) => map(&image, |rgb: &[u16; 3]| rgb.map(high)),
            DynamicImage::ImageRgba16(image) => map(&image, |[r, g, b, _]: &[u16; 4]| [*r, *g, *b].map(high)),
            image => image.into_rgb8(),
        })
    }
}

/// RGB of every pixel of `N` values.
fn map<P: Pixel<Subpixel = u16>, const N: usize>(
    image: &ImageBuffer<P, Vec<u16>>,
    rgb: impl Fn(&[u16; N]) -> [u8; 3],
) -> RgbImage {
    let pixels = image.as_raw().as_chunks().0.iter().flat_map(rgb).collect();
    RgbImage::from_raw(image.width(), image.height(), pixels).unwrap_or_default()
}

/// A decoder that gives up on hostile bytes with a panic has refused them.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        Err(jpeg::refusal(panic.as_ref()).unwrap_or_else(|| io::Error::other("the decoder gave up").into()))
    })
}

/// Width and height in pixels, from the first bytes; `None` for what is no image.
pub(super) fn size_of(bytes: &[u8]) -> Option<Size> {
    let size = guarded(|| Ok(Encoded::open(bytes)?.size())).ok()?;
    (size.0 > 0 && size.1 > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb};

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_image_cut_short_anywhere_does_not_decode() {
        for (format, trailer) in [(ImageFormat::Jpeg, 0), (ImageFormat::Png, 12), (ImageFormat::WebP, 1)] {
            let whole = encoded(format);
            assert_eq!(decode(&whole).unwrap().dimensions(), (40, 30));
            // A PNG file without its empty last chunk has all its pixels.
            for end in 0..whole.len() - trailer {
                assert!(decode(&whole[..end]).is_err(), "{format:?} cut to {end} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn a_jpeg_may_have_junk_behind_it_and_a_whole_thumbnail_inside() {
        let mut whole = encoded(ImageFormat::Jpeg);
        whole.extend(b"\0\0junk");
        assert!(decode(&whole).is_ok());
        let mut segment = vec![0xff, 0xe1];
        segment.extend((whole.len() as u16 + 2).to_be_bytes());
        segment.extend(&whole);
        let mut nested = whole.clone();
        nested.splice(2..2, segment);
        assert!(decode(&nested).is_ok());
        nested.truncate(whole.len() * 3 / 2);
        assert!(decode(&nested).is_err());
    }
}
