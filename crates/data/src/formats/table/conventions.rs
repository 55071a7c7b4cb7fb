//! The visible list of what columns are called.

use super::Shape;

/// A way of naming the columns of a table of preferences.
pub struct Convention {
    /// Its name in help and documentation.
    pub name: &'static str,
    /// Who names columns so.
    pub source: &'static str,
    /// Its columns and what they mean; a table follows the first convention whose columns it has. Further columns do not matter.
    pub columns: Shape<&'static str>,
    /// Columns that hold the caption, the first that is there.
    pub captions: &'static [&'static str],
}

const PROMPT: &[&str] = &["prompt", "caption"];
const CAPTION: &[&str] = &["caption", "prompt", "original_prompt", "text"];

/// The column of Pick-a-Pic that says whether anybody judged a row.
pub const HAS_LABEL: &str = "has_label";

/// The columns that we write prompts into as they were typed, where captions are without the networks that they name.
pub const ORIGINAL_PROMPTS: [&str; 2] = ["original_prompt_0", "original_prompt_1"];

const fn single(image: &'static str, label: &'static str) -> Convention {
    Convention {
        name: "kto",
        source: "jacklishufan/diffusion-kto: rows of single images",
        columns: Shape::Single { image, label },
        captions: CAPTION,
    }
}

/// Columns of images, in tables of images with captions and nothing about how good they are: lists of diffusers' scripts and others.
pub const IMAGES: [&str; 6] = ["file_name", "image", "file_path", "image_path", "path", "jpg"];

/// Captions of such tables.
pub const IMAGE_CAPTIONS: &[&str] = CAPTION;

/// Every way of naming columns we know, in the order they are tried.
pub static CONVENTIONS: &[Convention] = &[
    Convention {
        name: "pick-a-pic",
        source: "yuvalkirstain/pickapic_v1 and v2; as tar shards, the ORPO example of diffusers",
        columns: Shape::Labeled { images: ["jpg_0", "jpg_1"], labels: ["label_0", "label_1"] },
        captions: CAPTION,
    },
    Convention {
        name: "invoke-training",
        source: "invoke-ai/invoke-training: metadata.jsonl of preference sets",
        columns: Shape::Labeled { images: ["image_0", "image_1"], labels: ["prefer_0", "prefer_1"] },
        captions: PROMPT,
    },
    Convention {
        name: "labeled",
        source: "ours: the names of a mapping of columns",
        columns: Shape::Labeled { images: ["image_0", "image_1"], labels: ["label_0", "label_1"] },
        captions: CAPTION,
    },
    Convention {
        name: "ranked",
        source: "ours: the names of a mapping of columns",
        columns: Shape::Ranked { winner: "winner", loser: "loser" },
        captions: CAPTION,
    },
    Convention {
        name: "verl-omni",
        source: "verl-omni: parquet for diffusion DPO",
        columns: Shape::Ranked { winner: "img_win", loser: "img_lose" },
        captions: PROMPT,
    },
    Convention {
        name: "diffsynth",
        source: "modelscope/DiffSynth-Studio: metadata of its DPO training",
        columns: Shape::Ranked { winner: "image", loser: "lose_image" },
        captions: PROMPT,
    },
    Convention {
        name: "chosen-rejected",
        source: "data-is-better-together/open-image-preferences-v1-binarized",
        columns: Shape::Ranked { winner: "chosen", loser: "rejected" },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv2-train",
        source: "ymhao/HPDv2: train.json, of two images each",
        columns: Shape::Ranking { images: "image_path", ranks: "human_preference", lowest_wins: false },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv2-test",
        source: "ymhao/HPDv2: test.json, of nine images each",
        columns: Shape::Ranking { images: "image_path", ranks: "rank", lowest_wins: true },
        captions: PROMPT,
    },
    Convention {
        name: "ranking",
        source: "HPDv2's, with the list of images called so",
        columns: Shape::Ranking { images: "images", ranks: "rank", lowest_wins: true },
        captions: PROMPT,
    },
    Convention {
        name: "hpdv3",
        source: "MizzenAI/HPDv3: path1 is preferred",
        columns: Shape::Ranked { winner: "path1", loser: "path2" },
        captions: PROMPT,
    },
    single("image", "label"),
    single("file_path", "label"),
    single("image_path", "label"),
    single("file_name", "label"),
    single("path", "label"),
    single("jpg", "label"),
    // Its annotations of Pick-a-Pic.
    single("file_name", "split"),
    single("file_path", "split"),
];
