//! Diffusion-KTO: single images, liked or disliked, instead of pairs.
//!
//! An image's gain is how much better the policy denoises it than the frozen reference. A liked image should gain more
//! than a reference point, a disliked one less, and the pull fades on either side of it.

use super::contract::{Label, MeanGain, Objective, PairContext, PairErrors};
use super::corruption::Corruption;
use super::registry::Entry;
use super::relative::relative_logit;
use super::settings;
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "kto",
    summary: "learn from single images, liked or disliked, relative to a frozen reference",
    source: "Li et al. 2024 (arXiv 2404.04465) eq. 8; jacklishufan/diffusion-kto train_kto_sd_v1.5.py --halo sigmoid",
    build: |settings| {
        let settings: Settings = settings::parse(settings)?;
        settings::positive("beta", settings.beta)?;
        settings::positive("lambda_liked", settings.lambda_liked)?;
        settings::positive("lambda_disliked", settings.lambda_disliked)?;
        Ok(Box::new(Kto(settings)))
    },
    not_monotone: None,
};

/// Which mean gain the images are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ReferencePoint {
    /// That of the optimizer step before: results depend on neither micro-batches nor ranks.
    #[default]
    PreviousStep,
    /// That of the micro-batch on all ranks, as released.
    Batch,
    /// None: a gain of 0.
    Zero,
}

/// What can be set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Sharpness of the preference, per unit of mean squared error; no factor 0.5 here.
    beta: f64,
    /// Weight of liked images.
    lambda_liked: f64,
    /// Weight of disliked images.
    lambda_disliked: f64,
    /// Which mean gain the images are measured against.
    reference_point: ReferencePoint,
}

impl Default for Settings {
    fn default() -> Self {
        let reference_point = ReferencePoint::PreviousStep;
        Self { beta: 1000.0, lambda_liked: 1.0, lambda_disliked: 1.0, reference_point }
    }
}

/// `loss = weight (1 - sigmoid(s beta (reference error - error - z)))` for one image, `s` being 1 if it is liked
/// and -1 if not; the mean of both losses for a pair.
#[derive(Debug)]
struct Kto(Settings);

impl Kto {
    /// The number inside the sigmoid: positive where a liked image gained more than the reference point, or a
    /// disliked one less.
    fn signed_gain(&self, label: Label, error: Dual, reference: f64, context: &PairContext) -> Dual {
        let point = match self.0.reference_point {
            ReferencePoint::Zero => 0.0,
            _ if context.mean_gain < 0.0 => 0.0,
            _ => context.mean_gain,
        };
        // Drift first: the two errors are nearly equal, so their difference is exact
        let below = ((error - reference) + point) * self.0.beta;
        match label {
            Label::Liked => -below,
            Label::Disliked => below,
        }
    }

    fn loss_of(&self, label: Label, error: Dual, reference: f64, context: &PairContext) -> Dual {
        let weight = match label {
            Label::Liked => self.0.lambda_liked,
            Label::Disliked => self.0.lambda_disliked,
        };
        // 1 - sigmoid(x) = sigmoid(-x), without cancellation
        (-self.signed_gain(label, error, reference, context)).sigmoid() * weight
    }
}

impl Objective for Kto {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn is_unpaired(&self) -> bool {
        true
    }

    fn mean_gain(&self) -> MeanGain {
        match self.0.reference_point {
            ReferencePoint::PreviousStep => MeanGain::PreviousStep,
            ReferencePoint::Batch => MeanGain::Batch,
            ReferencePoint::Zero => MeanGain::None,
        }
    }

    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual {
        let (reference_winner, reference_loser) = errors.expect_reference();
        let winner = self.loss_of(Label::Liked, errors.winner, reference_winner, context);
        let loser = self.loss_of(Label::Disliked, errors.loser, reference_loser, context);
        (winner + loser) * 0.5
    }

    /// The mean of both images' logits, from which the reference point drops out.
    fn logit(&self, errors: &PairErrors, _: &PairContext) -> Option<f64> {
        Some(relative_logit(errors, self.0.beta).value)
    }

    fn loss_of_one(&self, label: Label, error: Dual, reference: f64, context: &PairContext) -> Option<Dual> {
        Some(self.loss_of(label, error, reference, context))
    }

    fn logit_of_one(&self, label: Label, error: f64, reference: f64, context: &PairContext) -> Option<f64> {
        Some(self.signed_gain(label, Dual::constant(error), reference, context).value)
    }

    fn settings(&self) -> serde_json::Value {
        settings::print(&self.0)
    }

    fn warnings(&self) -> Vec<String> {
        let Settings { beta, lambda_liked, lambda_disliked, .. } = self.0;
        let mut warnings = Vec::new();
        if !(50.0..=10_000.0).contains(&beta) {
            warnings.push(format!(
                "beta {beta} is outside 50..10000: here it multiplies mean squared errors, and published runs use 1000"
            ));
        }
        let ratio = lambda_liked / lambda_disliked;
        if !(0.1..=10.0).contains(&ratio) {
            warnings.push(format!(
                "lambda_liked is {ratio} times lambda_disliked: published runs weigh both alike, and one label hardly counts"
            ));
        }
        warnings
    }
}
