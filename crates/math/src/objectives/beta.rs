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

    /// What it is called.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(convention, _)| *convention == self).map_or("mean", |(_, name)| name)
    }

    /// In words: what is multiplied, and by whom.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Mean => "half of it times mean errors, as here, in diffusers and in flow_grpo",
            Self::NoHalf => "times mean errors, as in OneTrainer and PNAPO",
            Self::Sum => "half of it times sums over a latent, as in SimpleTuner",
            Self::SumNoHalf => "times sums over a latent",
        }
    }

    /// Whether it depends on the size of a latent.
    pub fn is_of_sums(self) -> bool {
        matches!(self, Self::Sum | Self::SumNoHalf)
    }

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
