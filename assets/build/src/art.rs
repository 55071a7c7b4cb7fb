//! Icon sets, rendering one icon to a cell, and packing cells into a PNG atlas.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use serde_json::Value;

use crate::captions::normal_code;
use crate::sources::{FLUENT_FLAT, FLUENT_HIGH_CONTRAST, NOTO, Source, TWEMOJI};

/// Side of one square cell in pixels.
pub const CELL: u32 = 64;
/// Cells per atlas row.
pub const COLUMNS: u32 = 24;
/// Each output pixel is the mean of this many rendered pixels per side.
const SUPERSAMPLE: u32 = 4;

/// One drawing style of the embedded art.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Name of the style and stem of its atlas.
    pub name: &'static str,
    /// Package the drawings come from.
    pub source: Source,
    /// White border in pixels around the icon's own view box. Sets whose icons carry padding get none.
    pub margin: u32,
}

/// The four styles, in the order that every list of styles uses.
pub const STYLES: &[Style] = &[
    Style { name: "noto", source: NOTO, margin: 0 },
    Style { name: "twemoji", source: TWEMOJI, margin: 2 },
    Style { name: "fluent-flat", source: FLUENT_FLAT, margin: 0 },
    Style { name: "fluent-high-contrast", source: FLUENT_HIGH_CONTRAST, margin: 0 },
];

/// The drawings of one style: Iconify's `icons.json` joined with its `chars.json`.
pub struct IconSet {
    /// The style drawn.
    pub style: Style,
    icons: Value,
    name_of_code: BTreeMap<String, String>,
}

impl IconSet {
    /// Joins the two Iconify files of `style`.
    ///
    /// # Errors
    /// When `chars` does not map code points to names.
    pub fn new(style: Style, icons: Value, chars: &Value) -> Result<Self> {
        let chars = chars.as_object().context("chars.json is not an object")?;
        let name_of_code = chars
            .iter()
            .map(|(code, name)| {
                let name = name.as_str().with_context(|| format!("{code} has no icon name"))?;
                Ok((normal_code(code), name.to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { style, icons, name_of_code })
    }

    /// Whether the set draws `code` itself, not as a transformed alias.
    pub fn has(&self, code: &str) -> bool {
        self.name_of_code.get(code).is_some_and(|name| self.icons["icons"].get(name).is_some())
    }

    fn svg(&self, code: &str) -> Result<String> {
        let name =
            self.name_of_code.get(code).with_context(|| format!("{} lacks {code}", self.style.name))?;
        let icon = &self.icons["icons"][name];
        let body = icon["body"].as_str().with_context(|| format!("{name} has no body"))?;
        let size = |key: &str| icon[key].as_f64().or(self.icons[key].as_f64()).unwrap_or(16.0);
        let origin = |key: &str| icon[key].as_f64().or(self.icons[key].as_f64()).unwrap_or(0.0);
        let (left, top, width, height) = (origin("left"), origin("top"), size("width"), size("height"));
        Ok(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{body}</svg>"#
        ))
    }

    /// Renders `code` centerd on white, the longer side of its view box filling the cell up to the style's margin.
    ///
    /// # Errors
    /// When the set lacks the icon or the drawing is not valid SVG.
    pub fn cell(&self, code: &str) -> Result<RgbImage> {
        let tree = Tree::from_str(&self.svg(code)?, &Options::default())
            .with_context(|| format!("{} {code} is not valid SVG", self.style.name))?;
        let side = CELL * SUPERSAMPLE;
        let mut canvas = Pixmap::new(side, side).context("allocating the canvas")?;
        canvas.fill(Color::WHITE);
        let (width, height) = (tree.size().width(), tree.size().height());
        let scale = ((CELL - 2 * self.style.margin) * SUPERSAMPLE) as f32 / width.max(height);
        let (dx, dy) = ((side as f32 - width * scale) / 2.0, (side as f32 - height * scale) / 2.0);
        resvg::render(&tree, Transform::from_row(scale, 0.0, 0.0, scale, dx, dy), &mut canvas.as_mut());
        Ok(box_downsample(&canvas))
    }
}

/// Means over `SUPERSAMPLE` x `SUPERSAMPLE` blocks of an opaque canvas, rounded to nearest.
fn box_downsample(canvas: &Pixmap) -> RgbImage {
    let n_samples = SUPERSAMPLE * SUPERSAMPLE;
    RgbImage::from_fn(CELL, CELL, |x, y| {
        let mut sum = [0_u32; 3];
        for offset in 0..n_samples {
            let column = x * SUPERSAMPLE + offset % SUPERSAMPLE;
            let row = y * SUPERSAMPLE + offset / SUPERSAMPLE;
            let start = 4 * (row * canvas.width() + column) as usize;
            for (total, value) in sum.iter_mut().zip(&canvas.data()[start..start + 3]) {
                *total += u32::from(*value);
            }
        }
        image::Rgb(sum.map(|total| ((total + n_samples / 2) / n_samples) as u8))
    })
}

/// Packs cells row by row, `columns` per row, on white.
///
/// # Errors
/// When there is no cell.
pub fn atlas(cells: &[RgbImage], columns: u32) -> Result<RgbImage> {
    ensure!(!cells.is_empty(), "an atlas needs a cell");
    let rows = (cells.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(columns * CELL, rows * CELL, image::Rgb([255; 3]));
    for (index, cell) in (0_u32..).zip(cells) {
        let (x, y) = (index % columns * CELL, index / columns * CELL);
        image::imageops::replace(&mut sheet, cell, i64::from(x), i64::from(y));
    }
    Ok(sheet)
}

/// Encodes a lossless RGB PNG with whichever row filter comes out smallest.
///
/// # Errors
/// When the encoder fails.
pub fn png(sheet: &RgbImage) -> Result<Vec<u8>> {
    let filters =
        [FilterType::NoFilter, FilterType::Sub, FilterType::Up, FilterType::Paeth, FilterType::Adaptive];
    let mut smallest: Option<Vec<u8>> = None;
    for filter in filters {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, filter)
            .write_image(sheet.as_raw(), sheet.width(), sheet.height(), ExtendedColorType::Rgb8)
            .context("encoding an atlas")?;
        if smallest.as_ref().is_none_or(|best| bytes.len() < best.len()) {
            smallest = Some(bytes);
        }
    }
    smallest.context("no row filter was tried")
}
