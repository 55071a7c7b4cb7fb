//! What can go wrong while judging and reporting.

use std::path::PathBuf;

/// Everything `tastemaker-eval` can refuse.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A judge needs at least one real artwork.
    #[error("gallery is empty: the judge compares against real artworks, so at least one is needed")]
    EmptyGallery,
    /// An artwork names a caption or a style outside the announced ranges.
    #[error(
        "artwork {artwork} has caption {caption} and style {style}, \
         but the judge was told of {n_captions} captions and {n_styles} styles"
    )]
    ArtworkOutOfRange {
        /// Position in the gallery.
        artwork: usize,
        /// Its caption index.
        caption: usize,
        /// Its style index.
        style: usize,
        /// Number of captions announced.
        n_captions: usize,
        /// Number of styles announced.
        n_styles: usize,
    },
    /// A scorer that knows a fixed set of captions was asked about another one.
    #[error("prompt {prompt:?} is not one of the {n_captions} captions this scorer knows")]
    UnknownPrompt {
        /// The prompt as given.
        prompt: String,
        /// Number of captions known.
        n_captions: usize,
    },
    /// A scorer cannot learn a preference from nothing.
    #[error("no ranked pairs: a preference scorer needs at least one to learn or to be checked")]
    NoRankedPairs,
    /// A ranked pair names a caption outside the announced range.
    #[error("ranked pair has caption {caption}, but the scorer was told of {n_captions} captions")]
    PairOutOfRange {
        /// Its caption index.
        caption: usize,
        /// Number of captions announced.
        n_captions: usize,
    },
    /// A ranked pair whose images cannot be compared place by place.
    #[error(
        "ranked pair of caption {caption} has a winner of {} x {} and a loser of {} x {} pixels: \
         both must be of one size",
        winner.0, winner.1, loser.0, loser.1
    )]
    PairOfTwoSizes {
        /// Its caption index.
        caption: usize,
        /// Width and height of the winner.
        winner: (u32, u32),
        /// Width and height of the loser.
        loser: (u32, u32),
    },
    /// A scorer is only checked on captions it has not learned from.
    #[error(
        "caption {caption} is not held out: the preference scorer learned from it, so it cannot be checked on it"
    )]
    CaptionNotHeldOut {
        /// Its index.
        caption: usize,
    },
    /// A scorer that cannot judge.
    #[error("scorer `{scorer}` cannot judge: {what}")]
    Scorer {
        /// Its name.
        scorer: String,
        /// Why not.
        what: String,
    },
    /// An image that no square can be made of.
    #[error(
        "image {item} is {width} x {height} pixels; wanted one whose sides differ by a factor of {longest} at most"
    )]
    ImageShape {
        /// Its position among the images.
        item: usize,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The largest factor.
        longest: u32,
    },
    /// A scorer that gives no number: its weights are damaged, or an image is beyond them.
    #[error(
        "scorer `{scorer}` gives {score} for image {item}, whose prompt is {prompt:?}: its weights may be damaged"
    )]
    ImageScore {
        /// Its name.
        scorer: String,
        /// Position of the image.
        item: usize,
        /// Its prompt.
        prompt: String,
        /// What came out.
        score: f64,
    },
    /// Something that was said to be a result of a comparison.
    #[error("{} does not belong to this comparison: {what}", .path.display())]
    Compared {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what to do.
        what: String,
    },
    /// A folder of images that lacks some.
    #[error("{} does not fit the prompts: {what}", .path.display())]
    Images {
        /// The folder.
        path: PathBuf,
        /// What was found and what to do.
        what: String,
    },
    /// A weight that does not fit the scorers.
    #[error("{what}")]
    Weight {
        /// What was found and what was wanted.
        what: String,
    },
    /// Scores to compare must be numbers.
    #[error("score of prompt {prompt}, seed {seed} is not finite: {a} against {b}")]
    ScoreNotFinite {
        /// Prompt index of the comparison.
        prompt: usize,
        /// Seed of the comparison.
        seed: u64,
        /// First score.
        a: f64,
        /// Second score.
        b: f64,
    },
    /// A win rate over nothing.
    #[error("no comparisons in group {group}: a win rate needs at least one")]
    NoComparisons {
        /// Name of the empty group.
        group: &'static str,
    },
    /// A report whose parts do not belong together.
    #[error("report is inconsistent: {what}")]
    InconsistentReport {
        /// What was found and what was wanted.
        what: String,
    },
    /// An image could not be encoded or decoded.
    #[error("image could not be coded")]
    Image(#[from] image::ImageError),
    /// A summary could not be written as JSON.
    #[error("summary could not be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] tastemaker_store::StoreError),
    /// A model could not be read.
    #[error(transparent)]
    Model(#[from] tastemaker_models::ModelError),
    /// libtorch.
    #[error("libtorch refused")]
    Tch(#[from] tch::TchError),
}

impl EvalError {
    /// The same error about a list of images that begins `by` images earlier.
    pub(crate) fn further(mut self, by: usize) -> Self {
        if let Self::ImageShape { item, .. } | Self::ImageScore { item, .. } = &mut self {
            *item += by;
        }
        self
    }

    /// The position of the image that the error is about.
    pub fn item(&self) -> Option<usize> {
        match self {
            Self::ImageShape { item, .. } | Self::ImageScore { item, .. } => Some(*item),
            _ => None,
        }
    }
}
