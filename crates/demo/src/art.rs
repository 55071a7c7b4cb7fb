//! The embedded art: every caption drawn in every style, as 64x64 cells of one atlas per style.

use image::RgbImage;
use serde::Deserialize;

use crate::DemoError;
use crate::scorers::Artwork;

/// Side of an image, in pixels.
pub const SIDE: u32 = 64;
const COLUMNS: u32 = 24;

/// The styles, in atlas order. The base model has seen the first three.
pub const STYLES: [&str; 4] = ["noto", "twemoji", "fluent-flat", "fluent-high-contrast"];

const ATLASES: [&[u8]; 4] = [
    include_bytes!("../../../assets/demo/art/noto.png"),
    include_bytes!("../../../assets/demo/art/twemoji.png"),
    include_bytes!("../../../assets/demo/art/fluent-flat.png"),
    include_bytes!("../../../assets/demo/art/fluent-high-contrast.png"),
];
const CAPTIONS: &[u8] = include_bytes!("../../../assets/demo/captions.json");

/// Which side of the preference data's split a caption is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Preference training never sees it.
    HeldOut,
    /// Preference training may use it.
    Train,
}

impl Split {
    /// Both, held out first.
    pub const BOTH: [Self; 2] = [Self::HeldOut, Self::Train];

    /// The name of its prompts in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::HeldOut => "held out",
            Self::Train => "seen",
        }
    }
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
    pub fn open() -> Result<Self, DemoError> {
        let damaged = |what: &str, why: String| DemoError::Embedded { what: what.to_owned(), why };
        let captions: Vec<Caption> =
            serde_json::from_slice(CAPTIONS).map_err(|error| damaged("captions", error.to_string()))?;
        let wanted = (COLUMNS * SIDE, (captions.len() as u32).div_ceil(COLUMNS) * SIDE);
        let atlases = ATLASES
            .iter()
            .zip(STYLES)
            .map(|(bytes, style)| {
                let atlas =
                    image::load_from_memory(bytes).map_err(|error| damaged(style, error.to_string()))?;
                let found = (atlas.width(), atlas.height());
                match found == wanted {
                    true => Ok(atlas.into_rgb8()),
                    false => Err(damaged(style, format!("it is {found:?} pixels, wanted {wanted:?}"))),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { captions, atlases })
    }

    /// The image of a caption in a style.
    pub fn image(&self, caption: usize, style: usize) -> RgbImage {
        let (column, row) = (caption as u32 % COLUMNS, caption as u32 / COLUMNS);
        image::imageops::crop_imm(&self.atlases[style], column * SIDE, row * SIDE, SIDE, SIDE).to_image()
    }

    /// Every caption in every style.
    pub fn gallery(&self) -> Vec<Artwork> {
        let cell = |caption: usize| {
            (0..STYLES.len()).map(move |style| Artwork { caption, style, image: self.image(caption, style) })
        };
        (0..self.captions.len()).flat_map(cell).collect()
    }

    /// The labels of the captions, in order.
    pub fn labels(&self) -> Vec<String> {
        self.captions.iter().map(|caption| caption.label.clone()).collect()
    }

    /// Indices of the captions on one side of the split.
    pub fn on(&self, side: Split) -> Vec<usize> {
        (0..self.captions.len()).filter(|&i| self.captions[i].split == side).collect()
    }
}
