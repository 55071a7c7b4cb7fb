//! What a user says about a set beyond where it is.

use serde::{Deserialize, Serialize};

/// How to open a set of pairs; nothing said means that files and columns speak for themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSettings {
    /// Name of a layout in [`FORMATS`](super::FORMATS), where files would be taken for another or for none.
    pub format: Option<String>,
    /// What columns hold.
    pub columns: Columns,
    /// Whether rows of single images stay what they are, liked or disliked, instead of becoming pairs.
    pub unpaired: bool,
    /// Whether rows of two images that nobody ranked are kept as [ties](crate::set::PairSet::is_tie), the first image in the
    /// winner's place.
    pub ties: bool,
}

/// Names of columns, for tables that follow no convention of [`CONVENTIONS`](super::CONVENTIONS).
///
/// What is named here overrides what was detected. An `image_0` with a `label_0` and no second image is a table of single
/// images, as for KTO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// The first image, ranked by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_0: Option<String>,
    /// The second image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_1: Option<String>,
    /// How good the first image is; the larger label wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_0: Option<String>,
    /// How good the second image is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_1: Option<String>,
    /// The image people like better, where columns are ranked already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// The other image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loser: Option<String>,
    /// How good a model of rewards finds the first image, or the winner; with this the pair has a soft label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_0: Option<String>,
    /// How good it finds the second image, or the loser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_1: Option<String>,
    /// PickScore's cosine of the first image, or the winner, with the caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ps_score_0: Option<String>,
    /// That of the second image, or the loser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ps_score_1: Option<String>,
    /// Probability that the winner is really the better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_label: Option<String>,
    /// Probability that the first image is the better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability_0: Option<String>,
    /// What both images shall show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

impl Columns {
    /// The keys, in the order of help texts.
    pub const KEYS: [&'static str; 13] = [
        "image_0",
        "image_1",
        "label_0",
        "label_1",
        "winner",
        "loser",
        "score_0",
        "score_1",
        "ps_score_0",
        "ps_score_1",
        "soft_label",
        "probability_0",
        "caption",
    ];

    /// The name under a key of [`KEYS`](Self::KEYS), to be set; `None` for another key.
    pub fn key(&mut self, key: &str) -> Option<&mut Option<String>> {
        Some(match key {
            "image_0" => &mut self.image_0,
            "image_1" => &mut self.image_1,
            "label_0" => &mut self.label_0,
            "label_1" => &mut self.label_1,
            "winner" => &mut self.winner,
            "loser" => &mut self.loser,
            "score_0" => &mut self.score_0,
            "score_1" => &mut self.score_1,
            "ps_score_0" => &mut self.ps_score_0,
            "ps_score_1" => &mut self.ps_score_1,
            "soft_label" => &mut self.soft_label,
            "probability_0" => &mut self.probability_0,
            "caption" => &mut self.caption,
            _ => return None,
        })
    }

    /// The columns named, each after its key.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let names = [
            &self.image_0,
            &self.image_1,
            &self.label_0,
            &self.label_1,
            &self.winner,
            &self.loser,
            &self.score_0,
            &self.score_1,
            &self.ps_score_0,
            &self.ps_score_1,
            &self.soft_label,
            &self.probability_0,
            &self.caption,
        ];
        Self::KEYS.into_iter().zip(names).filter_map(|(key, name)| Some((key, name.as_deref()?)))
    }
}
