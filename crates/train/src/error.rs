//! The one error type of this crate.

use tastemaker_models::ModelError;
use tastemaker_run::RunError;
use tastemaker_torch::TorchError;

/// What can stop training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// An error, or a loss made of errors, was infinite or not a number.
    #[error(
        "step {step}: the loss of pair {pairs:?} is not finite; nothing was changed by this step. Lower the learning \
         rate or beta, or leave these pairs out"
    )]
    NonFinite {
        /// The optimiser step, from 0.
        step: u64,
        /// The pairs whose loss is not finite.
        pairs: Vec<u64>,
    },

    /// There is nothing to train on.
    #[error("no pairs to train on: {n_pairs} in the data, {n_held_out} of them held out; lower `held_out_fraction`")]
    NoPairs {
        /// Pairs in all.
        n_pairs: usize,
        /// Held out of training.
        n_held_out: usize,
    },

    /// Nothing is trainable: no layer's name matches the adapter's targets.
    #[error("nothing to train: no layer's name ends with one of {target_modules:?}")]
    NothingTrainable {
        /// The targets.
        target_modules: Vec<String>,
    },

    /// The model could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// The plan or the run directory.
    #[error(transparent)]
    Run(#[from] RunError),

    /// Data.
    #[error(transparent)]
    Data(#[from] tastemaker_data::DataError),

    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TorchError),
}
