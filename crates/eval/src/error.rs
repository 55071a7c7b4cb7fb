//! What can go wrong while judging and reporting.

use std::path::PathBuf;

/// Everything `tastemaker-eval` can refuse.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A scorer that knows a fixed set of captions was asked about another one.
    #[error("prompt {prompt:?} is not one of the {n_captions} captions this scorer knows")]
    UnknownPrompt {
        /// The prompt as given.
        prompt: String,
        /// Number of captions known.
        n_captions: usize,
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
    #[error("no images to compare: a win rate needs at least one of either model")]
    NothingToCompare,
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
