//! JPEG, as Pillow decodes it.

use std::any::Any;
use std::io;

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ImageError, ImageFormat, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};

use crate::transform::Size;

/// The first marker of a JPEG file, and the byte that begins the next one.
const START: &[u8] = &[0xff, 0xd8, 0xff];

/// How EXIF data begins in its segment.
const EXIF: &[u8] = b"Exif\0\0";

/// Whether a file is JPEG by its first bytes.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// A file whose header was read.
pub struct Jpeg<'a>(Decompress<&'a [u8]>);

impl<'a> Jpeg<'a> {
    /// Reads the header. What libjpeg refuses it refuses with a panic, which [`refusal`] turns into an error.
    ///
    /// # Errors
    /// [`ImageError`] for a file that ends before its image does: decoders fill what is missing with gray, Pillow refuses it.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if !is_whole(bytes) {
            return Err(error("the file ends before the image does"));
        }
        Ok(Self(Decompress::builder().with_markers(&[Marker::APP(1)]).from_mem(bytes)?))
    }

    /// Width and height in pixels.
    pub fn size(&self) -> Size {
        (self.0.width() as u32, self.0.height() as u32)
    }

    /// What decoding takes, in bytes for each pixel: the pixels, all coefficients if the file is progressive, and inks.
    pub fn bytes_per_pixel(&self) -> u64 {
        let n = self.0.components().len() as u64;
        3 + 2 * n + if n > 3 { n } else { 0 }
    }

    /// The way up that EXIF asks for. Metadata that cannot be read says nothing.
    pub fn orientation(&self) -> Orientation {
        let exif = self.0.markers().find_map(|marker| marker.data.strip_prefix(EXIF));
        exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
    }

    /// The pixels.
    ///
    /// # Errors
    /// [`ImageError`] for two components, which Pillow refuses, too.
    pub fn decode(self) -> Result<RgbImage, ImageError> {
        let (width, height) = self.size();
        let n_pixels = width as usize * height as usize;
        let pixels = match self.0.components().len() {
            1 | 3 => {
                let mut pixels = vec![0; 3 * n_pixels];
                self.0.rgb()?.read_scanlines_into(&mut pixels)?;
                pixels
            }
            4 => {
                let mut inks = vec![0; 4 * n_pixels];
                self.0.to_colorspace(ColorSpace::JCS_CMYK)?.read_scanlines_into(&mut inks)?;
                inks.as_chunks().0.iter().flat_map(|inks| rgb(*inks)).collect()
            }
            n => return Err(error(&format!("{n} components; wanted 1, 3 or 4"))),
        };
        RgbImage::from_raw(width, height, pixels).ok_or_else(|| error("fewer pixels than it says"))
    }
}

/// What four inks look like, 0 being all of an ink as Adobe has them.
///
/// Source: `cmyk2rgb` of Pillow, which takes every file of four components to be Adobe's.
fn rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(black) + 128;
        black - ((product + (product >> 8)) >> 8) as u8
    })
}

/// What libjpeg says in the panic that ends its work; `None` for another panic.
pub fn refusal(panic: &(dyn Any + Send)) -> Option<ImageError> {
    let text = panic.downcast_ref::<String>()?;
    Some(error(text.strip_prefix("libjpeg fatal error: ")?))
}

fn error(what: &str) -> ImageError {
    let hint = ImageFormatHint::Exact(ImageFormat::Jpeg);
    ImageError::Decoding(DecodingError::new(hint, io::Error::other(what.to_owned())))
}

/// Whether the end-of-image marker is reached by way of the segments, so that one inside a thumbnail does not count.
///
/// Source: ITU-T T.81, annex B.
fn is_whole(bytes: &[u8]) -> bool {
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
