//! All images of a run on one sheet: prompts down, seeds across.

use std::path::Path;

use anyhow::Result;
use image::{RgbImage, imageops};
use tastemaker_eval::image_grid::{SheetStyle, grid_png};
use tastemaker_store::atomic;

/// The longer side of an image on the sheet, in pixels.
const SIDE: u32 = 256;

/// Images on a sheet; rows beyond are left off.
const MOST: usize = 400;

/// A sheet that is being filled.
pub struct Sheet {
    rows: Vec<Vec<Option<RgbImage>>>,
}

impl Sheet {
    /// An empty one.
    pub fn new(n_rows: usize, n_columns: usize) -> Self {
        let n_rows = n_rows.min(MOST / n_columns.max(1));
        Self { rows: vec![vec![None; n_columns]; n_rows] }
    }

    /// Puts an image, made smaller, in its place.
    pub fn put(&mut self, row: usize, column: usize, image: &RgbImage) {
        let Some(place) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) else { return };
        let (width, height) = image.dimensions();
        let longer = width.max(height);
        *place = Some(if longer <= SIDE {
            image.clone()
        } else {
            let scaled = |side: u32| (side * SIDE / longer).max(1);
            imageops::thumbnail(image, scaled(width), scaled(height))
        });
    }

    /// Writes it; of one image, or none, there is no sheet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(self, path: &Path) -> Result<()> {
        let rows: Vec<Vec<RgbImage>> =
            self.rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
        if rows.iter().map(Vec::len).sum::<usize>() > 1 {
            atomic::write_bytes(path, &grid_png(&rows, SheetStyle::default())?)?;
        }
        Ok(())
    }
}
