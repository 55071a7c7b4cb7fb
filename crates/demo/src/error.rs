//! What can go wrong in the demo.

use std::path::PathBuf;

use tastemaker_data::DataError;
use tastemaker_eval::EvalError;
use tastemaker_generate::GenerateError;
use tastemaker_models::ModelError;
use tastemaker_run::RunError;
use tastemaker_store::StoreError;
use tastemaker_torch::TorchError;
use tastemaker_train::TrainError;

/// Everything `tastemaker-demo` can refuse.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something that was asked for and does not exist or fit.
    #[error("{0}")]
    Usage(String),
    /// A part of this program that cannot be read.
    #[error("the embedded {what} cannot be read: {why}")]
    Embedded {
        /// The part.
        what: String,
        /// Why not.
        why: String,
    },
    /// A training that failed in a process of its own.
    #[error("`tastemaker train {}` ended with {status}", .recipe.display())]
    Training {
        /// Its recipe.
        recipe: PathBuf,
        /// How it ended.
        status: String,
    },
    /// A configuration that no network can be made from.
    #[error("{} is no configuration: {why}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A judge needs at least one real artwork.
    #[error("gallery is empty: the judge compares against real artworks, so at least one is needed")]
    EmptyGallery,
    /// An artwork names a caption or a style outside the announced ranges.
    #[error(
        "artwork {artwork} has caption {caption} and style {style}; wanted one of {n_captions} captions and {n_styles} styles"
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
    /// A scorer cannot learn a preference from nothing.
    #[error("no ranked pairs: a preference scorer needs at least one to learn or to be checked")]
    NoRankedPairs,
    /// A ranked pair that a scorer cannot learn from.
    #[error("ranked pair of caption {caption} {what}")]
    RankedPair {
        /// Its caption index.
        caption: usize,
        /// What was found and what was wanted.
        what: String,
    },
    /// A scorer is only checked on captions it has not learned from.
    #[error(
        "caption {caption} is not held out: the preference scorer learned from it, so it cannot be checked on it"
    )]
    CaptionNotHeldOut {
        /// Its index.
        caption: usize,
    },
    /// Pairs, or images and their pixels.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Scoring and comparing.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Generating.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The noise schedule.
    #[error(transparent)]
    Schedule(#[from] tastemaker_math::ScheduleError),
    /// A run's files.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Tensors and their files.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// An image that cannot be coded.
    #[error("image could not be coded")]
    Image(#[from] image::ImageError),
}

impl DemoError {
    /// A folder or file that cannot be cleared, read or started.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Store(StoreError::Io { action, path: path.into(), source })
    }
}
