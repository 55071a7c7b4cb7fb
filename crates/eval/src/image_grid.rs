//! Images side by side in one PNG file, for documentation.

use crate::EvalError;
use crate::report::Image;
use image::{Rgb, RgbImage, imageops};

/// How an image grid looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SheetStyle {
    /// Pixels between images and around the sheet.
    pub gap: u32,
    /// Whole factor by which every image is enlarged.
    pub scale: u32,
    /// Color between images.
    pub background: [u8; 3],
    /// Bars left of the rows, one color each; rows beyond the list have none. Empty: no bars.
    pub row_colors: &'static [[u8; 3]],
}

impl Default for SheetStyle {
    fn default() -> Self {
        Self { gap: 4, scale: 1, background: [255; 3], row_colors: &[] }
    }
}

/// Lays rows of equally sized images out on one sheet.
///
/// # Errors
/// No images, rows of different lengths, or images of different sizes.
pub fn image_grid(rows: &[Vec<RgbImage>], style: SheetStyle) -> Result<RgbImage, EvalError> {
    let ragged = |what| EvalError::RaggedGrid { what };
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
    let SheetStyle { gap, scale, background, row_colors } = style;
    let (cell_width, cell_height) = (width * scale, height * scale);
    let bar = if row_colors.is_empty() { 0 } else { gap.max(2) };
    let left = gap + if bar > 0 { bar + gap } else { 0 };
    let mut sheet = RgbImage::from_pixel(
        left + columns as u32 * (cell_width + gap),
        gap + rows.len() as u32 * (cell_height + gap),
        Rgb(background),
    );
    for (index, row) in rows.iter().enumerate() {
        let top = gap + index as u32 * (cell_height + gap);
        if let Some(&color) = row_colors.get(index) {
            imageops::replace(
                &mut sheet,
                &RgbImage::from_pixel(bar, cell_height, Rgb(color)),
                i64::from(gap),
                i64::from(top),
            );
        }
        for (column, image) in row.iter().enumerate() {
            let enlarged = imageops::resize(image, cell_width, cell_height, imageops::FilterType::Nearest);
            let x = left + column as u32 * (cell_width + gap);
            imageops::replace(&mut sheet, &enlarged, i64::from(x), i64::from(top));
        }
    }
    Ok(sheet)
}

/// [`image_grid`] as the bytes of a PNG file.
///
/// # Errors
/// As [`image_grid`].
pub fn grid_png(rows: &[Vec<RgbImage>], style: SheetStyle) -> Result<Vec<u8>, EvalError> {
    Ok(Image::new(&image_grid(rows, style)?)?.png)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(side: u32, gray: u8) -> RgbImage {
        RgbImage::from_pixel(side, side, Rgb([gray; 3]))
    }

    #[test]
    fn images_keep_their_places() {
        let rows = [vec![plain(8, 10), plain(8, 20)], vec![plain(8, 30), plain(8, 40)]];
        let sheet = image_grid(&rows, SheetStyle { gap: 2, scale: 2, ..SheetStyle::default() }).unwrap();
        assert_eq!(sheet.dimensions(), (2 + 2 * 18, 2 + 2 * 18));
        let gray_at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!(
            [gray_at(0, 0), gray_at(2, 2), gray_at(20, 17), gray_at(3, 21), gray_at(35, 35)],
            [255, 10, 20, 30, 40]
        );
    }

    #[test]
    fn ragged_rows_are_refused() {
        let error = image_grid(&[vec![plain(8, 0)], vec![]], SheetStyle::default()).unwrap_err();
        assert_eq!(error.to_string(), "image grid is ragged: row 1 has 0 images, row 0 has 1");
        let error = image_grid(&[vec![plain(8, 0), plain(9, 0)]], SheetStyle::default()).unwrap_err();
        assert_eq!(error.to_string(), "image grid is ragged: row 0 has an image of 9x9 among 8x8");
    }
}
