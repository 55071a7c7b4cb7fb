//! What a training changed of its model's noise, in the header of the adapter that it ended in.
//!
//! An adapter trained to predict velocity in a model whose files say epsilon is of no use without this. `ss_zero_terminal_snr` is
//! kohya's; the keys with our name say that it is the training that decided so, which `modelspec.prediction_type` and kohya's leave open:
//! these are written whatever the model's own files say.

use std::path::Path;

use tastemaker_math::Prediction;
use tastemaker_weights::safetensors::{Header, Metadata};

use crate::original::{parsed, spelled};

const PREDICTION: &str = "tastemaker.prediction_type";
const ZERO_TERMINAL_SNR: &str = "tastemaker.rescale_betas_zero_snr";

/// What settings of a training put in the place of what its model's files say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChosenNoise {
    /// What the network was trained to predict.
    pub prediction: Option<Prediction>,
    /// Whether noise levels were brought to end in pure noise.
    pub zero_terminal_snr: bool,
}

impl ChosenNoise {
    /// Reads an adapter's header; nothing where the file has none.
    pub fn of(path: &Path) -> Self {
        Header::read(path).map(|header| Self::of_metadata(&header.metadata)).unwrap_or_default()
    }

    pub(super) fn of_metadata(metadata: &Metadata) -> Self {
        Self {
            prediction: metadata.get(PREDICTION).and_then(|text| parsed(text)),
            zero_terminal_snr: metadata.get(ZERO_TERMINAL_SNR).is_some_and(|text| text == "true"),
        }
    }

    pub(super) fn metadata(self) -> Metadata {
        let prediction =
            self.prediction.map(|prediction| (PREDICTION.to_owned(), spelled(prediction).to_owned()));
        let levels = self.zero_terminal_snr.then(|| (ZERO_TERMINAL_SNR.to_owned(), "true".to_owned()));
        prediction.into_iter().chain(levels).collect()
    }
}
