//! Diffusion-KTO: single images, liked or disliked, instead of pairs.
//!
//! An image's gain is how much better the policy denoises it than the frozen reference. A liked image should gain more
//! than a reference point, a disliked one less, and the pull fades on either side of it.

use super::entry::{BETA_DPO, ERROR_BETA, Entry};
use super::inputs::{Image, Label, MeanGain};
use super::method::{Loss, Unpaired, unpaired};
use super::settings::{self, Settings, SettingsError};
use crate::number;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "kto",
    summary: "learn from single images, liked or disliked, relative to a frozen reference",
    source: "Li et al. 2024 (arXiv 2404.04465) eq. 8; jacklishufan/diffusion-kto train_kto_sd_v1.5.py --halo sigmoid",
    build: unpaired::<Kto>,
    not_monotone: None,
    detached: None,
    published: &[],
    shorthands: &[BETA_DPO],
    beta_conventions: ERROR_BETA,
};

/// `loss = weight (1 - sigmoid(s beta (reference error - error - z)))` for one image, `s` being 1 if it is liked
/// and -1 if not; the mean of both losses for a pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kto {
    /// Sharpness of the preference, per unit of mean squared error; no factor 0.5 here.
    beta: f64,
    /// Weight of liked images.
    lambda_liked: f64,
    /// Weight of disliked images.
    lambda_disliked: f64,
    /// Which images the others are measured against; as released, those of the micro-batch on all ranks.
    reference_point: MeanGain,
}

impl Default for Kto {
    fn default() -> Self {
        let reference_point = MeanGain::PreviousStep;
        Self { beta: 1000.0, lambda_liked: 1.0, lambda_disliked: 1.0, reference_point }
    }
}

impl Settings for Kto {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        settings::positive("lambda_liked", self.lambda_liked)?;
        settings::positive("lambda_disliked", self.lambda_disliked)
    }
}

impl Unpaired for Kto {
    fn mean_gain(&self) -> MeanGain {
        self.reference_point
    }

    fn loss(&self, label: Label, image: &Image, mean_gain: f64) -> Loss {
        // A comparison, for max would make 0 of NaN
        let reference_point = if mean_gain < 0.0 { 0.0 } else { mean_gain };
        let shortfall = (image.drift() + reference_point) * self.beta;
        let (logit, weight) = match label {
            Label::Liked => (-shortfall, self.lambda_liked),
            Label::Disliked => (shortfall, self.lambda_disliked),
        };
        // 1 - sigmoid(x) = sigmoid(-x), without cancellation
        Loss { value: (-logit).sigmoid() * weight, logit: Some(logit.value) }
    }

    fn warnings(&self) -> Vec<String> {
        let Self { beta, lambda_liked, lambda_disliked, .. } = *self;
        let mut warnings = Vec::new();
        if !(50.0..=10_000.0).contains(&beta) {
            warnings.push(format!(
                "beta {} is outside 50..10000: here it multiplies mean squared errors, and published runs use 1000",
                number(beta)
            ));
        }
        let ratio = lambda_liked / lambda_disliked;
        if !(0.1..=10.0).contains(&ratio) {
            warnings.push(format!(
                "lambda_liked is {} times lambda_disliked: published runs weigh both alike, and one label hardly counts",
                number(ratio)
            ));
        }
        warnings
    }
}
