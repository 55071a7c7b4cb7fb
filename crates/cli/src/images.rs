//! Images on disk.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use tastemaker_store::atomic;

/// Writes a PNG file, whole or not at all.
///
/// # Errors
/// The image cannot be encoded, or the file not written.
pub fn write(path: &Path, image: &RgbImage) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).context("encoding an image as PNG")?;
    Ok(atomic::write_bytes(path, png.get_ref())?)
}
