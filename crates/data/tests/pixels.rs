//! Pixels as Pillow reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tastemaker_data::set::decode;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/images")
}

/// Levels of 255 that an image may differ by.
const TOLERANCE: u8 = 1;

#[test]
fn pixels_are_pillows_within_one_level() {
    let mut worst = BTreeMap::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".png") else { continue };
        let Ok(encoded) = fs::read(golden().join(name)) else { continue };
        let wanted = image::open(&path).unwrap().into_rgb8();
        let found = decode(&encoded).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.dimensions(), wanted.dimensions(), "{name}");
        let differences = found.as_raw().iter().zip(wanted.as_raw()).map(|(a, b)| a.abs_diff(*b));
        worst.insert(name.to_owned(), differences.max().unwrap());
    }
    assert_eq!(worst.len(), 44, "a case was lost: {:?}", worst.keys());
    worst.retain(|_, levels| *levels > TOLERANCE);
    assert!(worst.is_empty(), "{worst:?}");
}
