//! What a `beta` of another program is here, and the other way round.
//!
//! Here the logit is `-0.5 beta` times a difference of mean squared errors. Others take sums over the elements of a latent, or no 0.5.

use serde::{Deserialize, Serialize};

/// How a program multiplies the margin of errors by its `beta`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BetaConvention {
    /// Half of `beta`, errors are means: here, diffusers, SalesforceAIResearch/DiffusionDPO, flow_grpo, Flow-Factory, verl-omni.
    #[default]
    Mean,
    /// `beta`, errors are means: OneTrainer, PNAPO.
    NoHalf,
    /// Half of `beta`, errors are sums: SimpleTuner.
    Sum,
    /// `beta`, errors are sums.
    SumNoHalf,
}

impl BetaConvention {
    /// All of them, with what each is called.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Mean, "mean"),
        (Self::NoHalf, "no-half"),
        (Self::Sum, "sum"),
        (Self::SumNoHalf, "sum-no-half"),
    ];

    /// Our `beta` over one of this convention, for latents of so many elements.
    pub fn factor(self, n_elements: usize) -> f64 {
        match self {
            Self::Mean => 1.0,
            Self::NoHalf => 2.0,
            Self::Sum => n_elements as f64,
            Self::SumNoHalf => 2.0 * n_elements as f64,
        }
    }

    /// Our `beta` for one of this convention.
    pub fn to_ours(self, beta: f64, n_elements: usize) -> f64 {
        beta * self.factor(n_elements)
    }

    /// What our `beta` is in this convention.
    pub fn of_ours(self, beta: f64, n_elements: usize) -> f64 {
        beta / self.factor(n_elements)
    }
}
