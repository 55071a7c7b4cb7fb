//! What tests of formats share.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use tastemaker_data::formats::{Columns, OpenSettings, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, PairSource, Reason, Side};
use tastemaker_store::tree::Location;

/// A one-color image whose shade tells which it is.
pub fn png(shade: u8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    RgbImage::from_pixel(4, 3, Rgb([shade; 3])).write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

/// Opens with columns given as `key=name`.
pub fn open_mapped(path: impl AsRef<Path>, mapping: &[(&str, &str)]) -> Result<PairSet, DataError> {
    let mut columns = Columns::default();
    for (key, name) in mapping {
        *columns.key(key).unwrap() = Some((*name).to_owned());
    }
    open_with(&Location::local(path).unwrap(), &OpenSettings { columns, ..OpenSettings::default() })
}

/// Id, shades of winner and loser, and caption of every pair.
pub fn pairs(set: &PairSet) -> Vec<(u64, u8, u8, &str)> {
    let shade = |at, side| set.image(at, side).unwrap().get_pixel(0, 0).0[0];
    (0..set.len())
        .map(|at| (set.id(at).0, shade(at, Side::Winner), shade(at, Side::Loser), set.caption(at)))
        .collect()
}

/// Id and reason of every row skipped.
pub fn skipped(set: &PairSet) -> Vec<(u64, Reason)> {
    set.skipped().iter().map(|row| (row.id.0, row.reason)).collect()
}
