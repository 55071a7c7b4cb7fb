//! The one error type of this crate.

use std::path::PathBuf;

use tastemaker_store::StoreError;
use tastemaker_torch::TorchError;

use crate::nn::WeightsReport;

/// Why a network, a tokenizer or a whole model folder could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration asks for something that is not supported, or makes no sense.
    #[error("{}: {problems}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Every problem found, in one line.
        problems: String,
    },
    /// A checkpoint does not hold the tensors that its configuration promises.
    #[error("{} does not fit its configuration: {report}", .path.display())]
    Weights {
        /// The weights file, or the folder of a checkpoint in shards.
        path: PathBuf,
        /// Every tensor that is missing, unexpected or misshapen.
        report: Box<WeightsReport>,
    },
    /// A tokenizer's file contradicts itself or another file of its folder.
    #[error("{}: {message}", .path.display())]
    Tokenizer {
        /// The file at fault.
        path: PathBuf,
        /// What it says and what was wanted.
        message: String,
    },
    /// Nothing says what an SD2.x model in one file predicts.
    #[error(
        "SD2.x comes in two kinds that no file tells apart; add --prediction_type v_prediction for those made for 768 \
         pixels, --prediction_type epsilon for the others"
    )]
    UnknownPrediction,
    /// A single file that says two things about its noise.
    #[error(
        "{} contradicts itself: {what}; add --prediction_type epsilon or --prediction_type v_prediction",
        .path.display()
    )]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What it says, and where.
        what: String,
    },
    /// A choice of files that cannot be made.
    #[error("{0}")]
    Choice(String),
    /// What was computed is not what another program recorded.
    #[error("{} differs from what is computed here by more than {tolerance:e}: {what}", .path.display())]
    Differs {
        /// The recorded results.
        path: PathBuf,
        /// Names of the results that differ.
        what: String,
        /// The largest relative error that would have been accepted.
        tolerance: f64,
    },
    /// An adapter of another family, or of another kind than LoRA.
    #[error("{} is {found}; wanted {wanted}", .path.display())]
    OtherAdapter {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What would do.
        wanted: String,
    },
    /// libtorch, or a tensor that libtorch cannot take.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// A file could not be read or is not well-formed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
