//! The visible list of what columns are called.

use super::Shape;

/// A way of naming the columns of a table of preferences.
pub struct Convention {
    /// Its name in help and documentation.
    pub name: &'static str,
    /// Who names columns so.
    pub source: &'static str,
    /// Its columns; a table follows the first convention whose columns it has. Further columns do not matter.
    pub roles: Roles,
    /// Columns that hold the caption, the first that is there.
    pub captions: &'static [&'static str],
}

/// What the columns of a convention mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// Two images, and how good each is.
    Labeled {
        /// The images.
        images: [&'static str; 2],
        /// How good they are; the larger wins.
        labels: [&'static str; 2],
    },
    /// Two images, ranked already.
    Ranked {
        /// The one people like better.
        winner: &'static str,
        /// The other one.
        loser: &'static str,
    },
    /// One image, and whether people like it.
    Single {
        /// The image.
        image: &'static str,
        /// 1 if they do, else 0 or -1.
        label: &'static str,
    },
    /// A list of images, and as long a list that orders them.
    Ranking {
        /// The images.
        images: &'static str,
        /// What orders them.
        ranks: &'static str,
        /// Whether the best image has the lowest value.
        lowest_wins: bool,
    },
}

impl Roles {
    /// The columns a table must have.
    pub fn columns(self) -> Vec<&'static str> {
        match self {
            Self::Labeled { images, labels } => [images, labels].concat(),
            Self::Ranked { winner, loser } => vec![winner, loser],
            Self::Single { image, label } => vec![image, label],
            Self::Ranking { images, ranks, .. } => vec![images, ranks],
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Labeled { images, labels } => {
                Shape::Labeled { images: images.map(str::to_owned), labels: labels.map(str::to_owned) }
            }
            Self::Ranked { winner, loser } => Shape::Ranked { winner: winner.into(), loser: loser.into() },
            Self::Single { image, label } => Shape::Single { image: image.into(), label: label.into() },
            Self::Ranking { images, ranks, lowest_wins } => {
                Shape::Ranking { images: images.into(), ranks: ranks.into(), lowest_wins }
            }
        }
    }
}

const PROMPT: &[&str] = &["prompt", "caption"];
const CAPTION: &[&str] = &["caption", "prompt", "original_prompt", "text"];

/// The column of Pick-a-Pic that says whether anybody judged a row.
pub(super) const HAS_LABEL: &str = "has_label";

const fn single(image: &'static str) -> Convention {
    Convention {
        name: "kto",
        source: "jacklishufan/diffusion-kto: rows of single images",
        roles: Roles::Single { image, label: "label" },
        captions: CAPTION,
    }
}

/// Every way of naming columns we know, in the order they are tried.
pub static CONVENTIONS: &[Convention] = &[
    Convention {
        name: "pick-a-pic",
        source: "yuvalkirstain/pickapic_v1 and v2; as tar shards, the ORPO example of diffusers",
        roles: Roles::Labeled { images: ["jpg_0", "jpg_1"], labels: ["label_0", "label_1"] },
        captions: CAPTION,
    },
    Convention {
        name: "invoke-training",
        source: "invoke-ai/invoke-training: metadata.jsonl of preference sets",
        roles: Roles::Labeled { images: ["image_0", "image_1"], labels: ["prefer_0", "prefer_1"] },
        captions: PROMPT,
    },
    Convention {
        name: "labeled",
        source: "ours: the names of a mapping of columns",
        roles: Roles::Labeled { images: ["image_0", "image_1"], labels: ["label_0", "label_1"] },
        captions: CAPTION,
    },
    Convention {
        name: "ranked",
        source: "ours: the names of a mapping of columns",
        roles: Roles::Ranked { winner: "winner", loser: "loser" },
        captions: CAPTION,
    },
    Convention {
        name: "verl-omni",
        source: "verl-omni: parquet for diffusion DPO",
        roles: Roles::Ranked { winner: "img_win", loser: "img_lose" },
        captions: PROMPT,
    },
    Convention {
        name: "diffsynth",
        source: "modelscope/DiffSynth-Studio: metadata of its DPO training",
        roles: Roles::Ranked { winner: "image", loser: "lose_image" },
        captions: PROMPT,
    },
    Convention {
        name: "chosen-rejected",
        source: "data-is-better-together/open-image-preferences-v1-binarized",
        roles: Roles::Ranked { winner: "chosen", loser: "rejected" },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv2-train",
        source: "ymhao/HPDv2: train.json, of two images each",
        roles: Roles::Ranking { images: "image_path", ranks: "human_preference", lowest_wins: false },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv2-test",
        source: "ymhao/HPDv2: test.json, of nine images each",
        roles: Roles::Ranking { images: "image_path", ranks: "rank", lowest_wins: true },
        captions: PROMPT,
    },
    Convention {
        name: "ranking",
        source: "HPDv2's, with the list of images called so",
        roles: Roles::Ranking { images: "images", ranks: "rank", lowest_wins: true },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv3",
        source: "MizzenAI/HPDv3: path1 is preferred",
        roles: Roles::Ranked { winner: "path1", loser: "path2" },
        captions: PROMPT,
    },
    single("image"),
    single("file_path"),
    single("image_path"),
    single("file_name"),
    single("path"),
    single("jpg"),
];
