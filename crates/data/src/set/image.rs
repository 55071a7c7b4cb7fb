//! From an encoded image to pixels.

use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use crate::transform::Size;

/// The longest encoded image that is read.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// Decodes to RGB, whatever the file is called. An alpha channel is dropped, as Pillow's `convert("RGB")`
/// does, and so is what EXIF says about the way up.
///
/// # Errors
/// [`ImageError`], also for an image that claims more than 16,384 pixels a side or 1 GiB in all, and for a JPEG file that ends
/// before its image does: decoders fill what is missing with gray, Pillow refuses it.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    guarded(|| pixels(open(bytes)?))
}

/// [`decode`], and the way up that EXIF asks for.
///
/// # Errors
/// As [`decode`].
pub fn decode_with_orientation(bytes: &[u8]) -> Result<(RgbImage, Orientation), ImageError> {
    guarded(|| {
        let mut decoder = open(bytes)?;
        // Metadata that cannot be read says nothing; the pixels count.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok((pixels(decoder)?, orientation))
    })
}

fn open(bytes: &[u8]) -> Result<impl ImageDecoder, ImageError> {
    if bytes.starts_with(JPEG) && !jpeg_is_whole(bytes) {
        let hint = ImageFormatHint::Exact(ImageFormat::Jpeg);
        return Err(ImageError::Decoding(DecodingError::new(hint, "the file ends before the image does")));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    // A few kilobytes can claim to be an image of many gigabytes; no training image is this large.
    let mut limits = Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    Ok(decoder)
}

fn pixels(decoder: impl ImageDecoder) -> Result<RgbImage, ImageError> {
    Ok(DynamicImage::from_decoder(decoder)?.into_rgb8())
}

/// A decoder that gives up on hostile bytes with a panic has refused them.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    let panicked = |_| Err(io::Error::other("the decoder gave up").into());
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(panicked)
}

/// The first marker of a JPEG file, and the byte that begins the next one.
const JPEG: &[u8] = &[0xff, 0xd8, 0xff];

/// Whether the end-of-image marker is reached by way of the segments, so that one inside a thumbnail does not count.
///
/// Source: ITU-T T.81, annex B.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Entropy-coded data, and junk where a marker is due, end at the next marker.
        let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else {
            return false;
        };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // A stuffed byte, restarts and others without a length; a fill byte is the next marker's first.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(length) => at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}

/// Width and height in pixels, from the first bytes; `None` for what is no image.
pub(super) fn size_of(bytes: &[u8]) -> Option<Size> {
    let size = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_dimensions().ok()?;
    (size.0 > 0 && size.1 > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

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
