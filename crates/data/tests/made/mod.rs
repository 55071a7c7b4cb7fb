//! Sets of pairs made on the spot.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// A folder that becomes a set.
pub struct Set {
    folder: TempDir,
}

impl Set {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn save(&self, name: &str, image: &RgbImage) {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        self.write(name, bytes.into_inner());
    }

    pub fn list(&self, rows: &[String]) {
        self.write("metadata.jsonl", rows.join("\n"));
    }
}

/// A row of a list; `winner` is 0 or 1.
pub fn row(image_0: &str, image_1: &str, prompt: &str, winner: u32) -> String {
    serde_json::json!({
        "image_0": image_0, "image_1": image_1, "prompt": prompt, "prefer_0": winner == 0, "prefer_1": winner == 1,
    })
    .to_string()
}

/// Soft blobs of color, others for every seed.
pub fn image(width: u32, height: u32, seed: u32) -> RgbImage {
    let wave = |x: u32, length: u32, by: u32| {
        let (turns, shift) = (1.0 + f64::from((seed * 7 + by) % 5), f64::from(seed * 31 + by * 17));
        (f64::from(x) / f64::from(length) * turns * 3.0 + shift).sin()
    };
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2].map(|channel| {
            let value = wave(x, width, channel) * 60.0 + wave(y, height, channel + 3) * 60.0;
            (128.0 + value) as u8
        }))
    })
}

pub fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).unwrap();
    bytes.into_inner()
}

/// A JPEG file with an EXIF segment that says "turn by 90 degrees", orientation 6.
pub fn turned(jpeg: &[u8]) -> Vec<u8> {
    let mut tiff = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
    tiff.extend(b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend((tiff.len() as u16 + 2).to_be_bytes());
    bytes.extend(&tiff);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// Every file below a folder.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}
