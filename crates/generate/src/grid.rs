//! Images side by side in one PNG file: prompts down, seeds across.

use std::path::Path;

use image::{Rgb, RgbImage, imageops};

use crate::{GenerateError, write_image};

/// The longer side of an image on a grid, in pixels.
const SIDE: u32 = 256;

/// Images on a grid; rows beyond are skipped.
const MAX_IMAGES: usize = 400;

/// Pixels between images and around the grid.
const GAP: u32 = 4;

/// A grid that is being filled.
pub struct Grid {
    rows: Vec<Vec<Option<RgbImage>>>,
}

impl Grid {
    /// An empty one.
    pub fn new(n_rows: usize, n_columns: usize) -> Self {
        let n_rows = n_rows.min(MAX_IMAGES / n_columns.max(1));
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

    /// Writes it; of one image, or none, there is no grid.
    ///
    /// # Errors
    /// [`GenerateError::RaggedGrid`] for images of different sizes, [`GenerateError::Store`].
    pub fn write(self, path: &Path) -> Result<(), GenerateError> {
        let rows: Vec<Vec<RgbImage>> =
            self.rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
        if rows.iter().map(Vec::len).sum::<usize>() > 1 {
            write_image(path, &image_grid(&rows)?)?;
        }
        Ok(())
    }
}

/// Lays rows of equally sized images out on white.
///
/// # Errors
/// [`GenerateError::RaggedGrid`] for no images, rows of different lengths, or images of different sizes.
pub fn image_grid(rows: &[Vec<RgbImage>]) -> Result<RgbImage, GenerateError> {
    let ragged = |what| GenerateError::RaggedGrid { what };
    let first =
        rows.first().and_then(|row| row.first()).ok_or_else(|| ragged("it has no images".to_owned()))?;
    let (columns, (width, height)) = (rows[0].len(), first.dimensions());
    for (index, row) in rows.iter().enumerate() {
        if row.len() != columns {
            return Err(ragged(format!("row {index} has {} images, row 0 has {columns}", row.len())));
        }
        if let Some(odd) = row.iter().find(|image| image.dimensions() != (width, height)) {
            let (odd_width, odd_height) = odd.dimensions();
            return Err(ragged(format!(
                "row {index} has an image of {odd_width}x{odd_height} among {width}x{height}"
            )));
        }
    }
    let place = |index: usize, side: u32| GAP + index as u32 * (side + GAP);
    let mut grid = RgbImage::from_pixel(place(columns, width), place(rows.len(), height), Rgb([255; 3]));
    for (index, row) in rows.iter().enumerate() {
        for (column, image) in row.iter().enumerate() {
            let (x, y) = (place(column, width), place(index, height));
            imageops::replace(&mut grid, image, i64::from(x), i64::from(y));
        }
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(side: u32, gray: u8) -> RgbImage {
        RgbImage::from_pixel(side, side, Rgb([gray; 3]))
    }

    #[test]
    fn images_keep_their_places() {
        let rows = [vec![plain(16, 10), plain(16, 20)], vec![plain(16, 30), plain(16, 40)]];
        let grid = image_grid(&rows).unwrap();
        assert_eq!(grid.dimensions(), (4 + 2 * 20, 4 + 2 * 20));
        let gray_at = |x, y| grid.get_pixel(x, y).0[0];
        assert_eq!(
            [gray_at(0, 0), gray_at(4, 4), gray_at(24, 19), gray_at(5, 24), gray_at(39, 39)],
            [255, 10, 20, 30, 40]
        );
    }

    #[test]
    fn ragged_rows_are_refused() {
        let error = image_grid(&[vec![plain(8, 0)], vec![]]).unwrap_err();
        assert_eq!(error.to_string(), "image grid is ragged: row 1 has 0 images, row 0 has 1");
        let error = image_grid(&[vec![plain(8, 0), plain(9, 0)]]).unwrap_err();
        assert_eq!(error.to_string(), "image grid is ragged: row 0 has an image of 9x9 among 8x8");
    }
}
