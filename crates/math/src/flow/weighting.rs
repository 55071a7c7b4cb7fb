//! Weights of a flow's squared velocity error by noise level.

use serde::{Deserialize, Serialize};

/// What an error counts, spelled as `--weighting_scheme` of diffusers' scripts where they have a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// The same at every level.
    #[default]
    None,
    /// `1 / s^2`, the name notwithstanding.
    SigmaSqrt,
    /// `2 / (pi (1 - 2 s + 2 s^2))`.
    Cosmap,
    /// `s^2`: the error of the clean latent, as SD3's scripts have it with `--precondition_outputs`.
    CleanLatent,
}

impl Weighting {
    /// The weight at noise level `sigma`.
    ///
    /// Source: `compute_loss_weighting_for_sd3` of diffusers; `examples/dreambooth/train_dreambooth_lora_sd3.py`.
    pub fn at(self, sigma: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::SigmaSqrt => 1.0 / (sigma * sigma),
            Self::Cosmap => 2.0 / (std::f64::consts::PI * (1.0 - 2.0 * sigma + 2.0 * sigma * sigma)),
            Self::CleanLatent => sigma * sigma,
        }
    }
}
