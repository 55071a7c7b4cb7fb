//! The embedded art: every caption drawn in every style, as 64x64 cells of one atlas per style.

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use serde::Deserialize;

/// Side of an image, in pixels.
pub const SIDE: u32 = 64;
const COLUMNS: u32 = 24;

/// The styles, in atlas order. The base model has seen the first three.
pub const STYLES: [&str; 4] = ["noto", "twemoji", "fluent-flat", "fluent-high-contrast"];

const ATLASES: [&[u8]; 4] = [
    include_bytes!("../../../../assets/demo/art/noto.png"),
    include_bytes!("../../../../assets/demo/art/twemoji.png"),
    include_bytes!("../../../../assets/demo/art/fluent-flat.png"),
    include_bytes!("../../../../assets/demo/art/fluent-high-contrast.png"),
];
const CAPTIONS: &[u8] = include_bytes!("../../../../assets/demo/captions.json");

/// Which side of the preference data's split a caption is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Preference training may use it.
    Train,
    /// Preference training never sees it.
    HeldOut,
}

/// One motif.
#[derive(Debug, Clone, Deserialize)]
pub struct Caption {
    /// Code points, hexadecimal, joined by `-`.
    pub code: String,
    /// What it shows; unique.
    pub label: String,
    /// Other words for it.
    pub tags: Vec<String>,
    /// Side of the split.
    pub split: Split,
}

/// All art, decoded.
pub struct Art {
    /// Motifs, in atlas order.
    pub captions: Vec<Caption>,
    atlases: Vec<RgbImage>,
}

impl Art {
    /// Decodes the embedded atlases.
    pub fn open() -> Result<Self> {
        let captions: Vec<Caption> =
            serde_json::from_slice(CAPTIONS).context("reading the embedded captions")?;
        let atlases = ATLASES
            .iter()
            .zip(STYLES)
            .map(|(bytes, style)| {
                let atlas =
                    image::load_from_memory(bytes).with_context(|| format!("decoding the {style} atlas"))?;
                Ok(atlas.into_rgb8())
            })
            .collect::<Result<Vec<_>>>()?;
        let n_rows = (captions.len() as u32).div_ceil(COLUMNS);
        for (atlas, style) in atlases.iter().zip(STYLES) {
            ensure!(
                atlas.dimensions() == (COLUMNS * SIDE, n_rows * SIDE),
                "the {style} atlas is {:?} pixels, wanted {n_rows} rows of {COLUMNS} cells",
                atlas.dimensions()
            );
        }
        Ok(Self { captions, atlases })
    }

    /// The image of a caption in a style.
    pub fn image(&self, caption: usize, style: usize) -> RgbImage {
        let (column, row) = (caption as u32 % COLUMNS, caption as u32 / COLUMNS);
        image::imageops::crop_imm(&self.atlases[style], column * SIDE, row * SIDE, SIDE, SIDE).to_image()
    }

    /// Indices of the captions on one side of the split.
    pub fn on(&self, side: Split) -> Vec<usize> {
        (0..self.captions.len()).filter(|&i| self.captions[i].split == side).collect()
    }
}
