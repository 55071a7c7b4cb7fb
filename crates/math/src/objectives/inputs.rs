//! What is measured about a pair or an image, and what of it a method receives.
//!
//! A method declares its [`Needs`] once. The engine measures them, and [`Pair::new`] and [`Image::new`] are the one place where
//! it shows if something is missing; whatever a method did not declare reaches it as NaN, and so does not go unnoticed.

use crate::dual::Dual;
use crate::level::Level;
use crate::schedule::NoiseSchedule;
use serde::{Deserialize, Serialize};

/// What has to be measured besides the policy's error on the winner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Whether the loser's error takes part; without it the loser need not be evaluated at all.
    pub loser: bool,
    /// Whether the frozen reference's errors take part.
    pub reference: bool,
    /// Whether [`PairInputs::residual_product`] takes part.
    pub residual_product: bool,
    /// Whether [`PairInputs::soft_label`] takes part.
    pub soft_label: bool,
    /// Whether [`PairInputs::distances`] take part.
    pub distance: bool,
    /// Over which images [`PairInputs::mean_gain`] is taken.
    pub mean_gain: MeanGain,
}

impl Needs {
    /// Nothing more.
    pub const WINNER: Self = Self {
        loser: false,
        reference: false,
        residual_product: false,
        soft_label: false,
        distance: false,
        mean_gain: MeanGain::Zero,
    };

    /// The policy's error on the loser.
    pub const PAIR: Self = Self { loser: true, ..Self::WINNER };

    /// The policy's error on the loser, and the reference's on both.
    pub const REFERENCE: Self = Self { reference: true, ..Self::PAIR };
}

/// Over which images [`PairInputs::mean_gain`] is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeanGain {
    /// All images of the optimizer step before, 0 at the first: the same whatever the split into micro-batches and ranks.
    PreviousStep,
    /// The images of the micro-batch.
    Batch,
    /// None: it is 0.
    Zero,
}

/// Where on the schedule errors were measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// Timesteps of the training schedule.
    pub n_train_timesteps: usize,
    /// Signal power at the timestep.
    pub alpha_bar: f64,
    /// Squared error of the network's output per squared error of the clean latent it implies: the signal-to-noise
    /// ratio when the noise is predicted, one more for the velocity.
    pub clean_gain: f64,
}

impl NoiseLevel {
    /// That of timestep `t`.
    pub fn at(schedule: &NoiseSchedule, t: usize) -> Self {
        Self::of(schedule, schedule.level(t))
    }

    /// That of a level of the schedule's.
    pub fn of(schedule: &NoiseSchedule, level: Level) -> Self {
        Self {
            n_train_timesteps: schedule.len(),
            alpha_bar: level.alpha_bar(),
            clean_gain: level.implied_target(schedule.prediction()).clean.powi(2),
        }
    }

    /// Squared error of the noise that the network's output implies, per squared error of the output: 1 when the noise is predicted,
    /// `alpha_bar` for the velocity, `(1 - s)^2` on a flow.
    pub fn noise_gain(&self) -> f64 {
        // Pure noise predicted from pure noise implies nothing about the clean latent; the limit is 1.
        if self.clean_gain > 0.0 { self.snr() / self.clean_gain } else { 1.0 }
    }

    /// Noise level on a flow's straight path, or that of the same signal-to-noise ratio there.
    pub fn sigma(&self) -> f64 {
        Level::variance_preserving(0.0, self.alpha_bar).sigma()
    }

    /// Signal-to-noise ratio at the timestep.
    pub fn snr(&self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }
}

/// One pair as measured; what the objective does not [need](Needs) may be `None`.
///
/// An error is the mean squared difference between the network's output and its target over all elements of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairInputs {
    /// The policy's error on the winner.
    pub winner: f64,
    /// The policy's error on the loser.
    pub loser: Option<f64>,
    /// The frozen reference's errors on (winner, loser).
    pub reference: Option<(f64, f64)>,
    /// Mean over all elements of (output - target) of the winner times (output - target) of the loser, both the policy's. Their
    /// squares have the two errors as means.
    pub residual_product: Option<f64>,
    /// Probability that the winner is really the better one, from scores.
    pub soft_label: Option<f64>,
    /// Mean squared distances between the policy's and the reference's output on (winner, loser); the loser's does not count where the
    /// method uses none.
    pub distances: Option<(f64, f64)>,
    /// Mean over images of `reference error - policy error`, 0 where that is negative; a constant, never differentiated.
    pub mean_gain: f64,
    /// Where on the schedule.
    pub level: NoiseLevel,
}

/// One labeled image as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageInputs {
    /// Its label.
    pub label: Label,
    /// The policy's error.
    pub error: f64,
    /// The frozen reference's error.
    pub reference: Option<f64>,
    /// Mean squared distance between the policy's and the reference's output.
    pub distance: Option<f64>,
    /// As [`PairInputs::mean_gain`].
    pub mean_gain: f64,
}

/// The label of a single image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// It should become more likely.
    Liked,
    /// It should become less likely.
    Disliked,
}

/// A pair as a method of pairs receives it.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The preferred image.
    pub winner: Image,
    /// The other image.
    pub loser: Image,
    /// See [`PairInputs::residual_product`].
    pub residual_product: f64,
    /// See [`PairInputs::soft_label`].
    pub soft_label: f64,
    /// Where on the schedule.
    pub level: NoiseLevel,
}

impl Pair {
    /// What of the inputs is needed, set up for differentiation.
    ///
    /// # Panics
    /// If something that is needed was not measured.
    pub fn new(needs: Needs, inputs: &PairInputs) -> Self {
        let (winner, loser) = inputs.reference.unzip();
        let loser_error = given("the loser's error", needs.loser, inputs.loser);
        Self {
            winner: Image::new(needs, Dual::winner(inputs.winner), winner),
            loser: Image::new(needs, Dual::loser(loser_error), loser),
            residual_product: given("the residual product", needs.residual_product, inputs.residual_product),
            soft_label: given("a soft label", needs.soft_label, inputs.soft_label),
            level: inputs.level,
        }
    }
}

/// An image as a method receives it.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The policy's error.
    pub error: Dual,
    /// The frozen reference's error.
    pub reference: f64,
}

impl Image {
    /// An image with what of the reference is needed.
    ///
    /// # Panics
    /// If the reference's error is needed and was not measured.
    pub fn new(needs: Needs, error: Dual, reference: Option<f64>) -> Self {
        Self { error, reference: given("the reference's error", needs.reference, reference) }
    }

    /// How much worse the policy is than the reference. The two errors are nearly equal, so that this difference is exact,
    /// and exactly 0 where policy and reference agree: methods compare drifts, not errors.
    pub fn drift(&self) -> Dual {
        self.error - self.reference
    }
}

/// What was measured if it is needed, else NaN.
fn given(what: &str, is_needed: bool, measured: Option<f64>) -> f64 {
    assert!(!is_needed || measured.is_some(), "the objective needs {what}, which was not measured");
    measured.filter(|_| is_needed).unwrap_or(f64::NAN)
}
