//! What an objective is given and what it has to give back.

use super::corruption::Corruption;
use crate::dual::Dual;
use crate::schedule::NoiseSchedule;

/// The errors of one pair: mean squared difference between model output and target over all elements of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairErrors {
    /// The policy's error on the preferred image.
    pub winner: Dual,
    /// The policy's error on the other image.
    pub loser: Dual,
    /// The frozen reference's errors on (winner, loser), for objectives that need them.
    pub reference: Option<(f64, f64)>,
    /// Mean over all elements of (prediction - target) of the winner times (prediction - target) of the loser, both the
    /// policy's, for objectives that need it. Their squares have the two errors as means.
    pub residual_product: Option<f64>,
}

impl PairErrors {
    /// Errors as measured, set up for differentiation, without a residual product.
    pub fn new(winner: f64, loser: f64, reference: Option<(f64, f64)>) -> Self {
        Self { winner: Dual::winner(winner), loser: Dual::loser(loser), reference, residual_product: None }
    }

    /// The same errors with [`PairErrors::residual_product`].
    pub fn with_residual_product(self, product: impl Into<Option<f64>>) -> Self {
        Self { residual_product: product.into(), ..self }
    }

    /// The reference's errors on (winner, loser).
    ///
    /// # Panics
    /// Without them: an objective that calls this answers `true` to [`Objective::needs_reference`].
    pub fn expect_reference(&self) -> (f64, f64) {
        self.reference.expect("an objective that needs a reference is given the reference errors")
    }

    /// See [`PairErrors::residual_product`].
    ///
    /// # Panics
    /// Without it: an objective that calls this answers `true` to [`Objective::needs_residual_product`].
    pub fn expect_residual_product(&self) -> f64 {
        self.residual_product.expect("an objective that needs the residual product is given it")
    }
}

/// Where on the schedule a pair was looked at, and what is known about it besides its errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairContext {
    /// The timestep the network was told.
    pub timestep: usize,
    /// Timesteps of the training schedule.
    pub n_train_timesteps: usize,
    /// Signal power at the timestep.
    pub alpha_bar: f64,
    /// Squared error of the network's output per squared error of the clean latent it implies: the signal-to-noise
    /// ratio when the noise is predicted, one more for the velocity.
    pub clean_gain: f64,
    /// Probability that the winner is really the better one, from scores; `None` for a pair without.
    pub soft_label: Option<f64>,
    /// Mean over images of `reference error - policy error`, 0 where that is negative; a constant, never differentiated.
    /// Over which images: [`Objective::mean_gain`].
    pub mean_gain: f64,
}

impl PairContext {
    /// What an objective is told about timestep `t` of a schedule; no soft label and a mean gain of 0.
    pub fn at(schedule: &NoiseSchedule, t: usize) -> Self {
        Self {
            timestep: t,
            n_train_timesteps: schedule.len(),
            alpha_bar: schedule.alpha_bar(t),
            clean_gain: schedule.implied_target_coefficients(t).clean.powi(2),
            soft_label: None,
            mean_gain: 0.0,
        }
    }

    /// See [`PairContext::soft_label`].
    ///
    /// # Panics
    /// Without it: an objective that calls this answers `true` to [`Objective::needs_soft_label`].
    pub fn expect_soft_label(&self) -> f64 {
        self.soft_label.expect("an objective that needs soft labels is given them")
    }

    /// Signal-to-noise ratio at the timestep.
    pub fn snr(&self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }
}

/// What was said about a single image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// It should become more likely.
    Liked,
    /// It should become less likely.
    Disliked,
}

/// Over which images [`PairContext::mean_gain`] is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MeanGain {
    /// None: it is not looked at.
    #[default]
    None,
    /// All images of the optimizer step before, 0 at the first: the same whatever the split into micro-batches and ranks.
    PreviousStep,
    /// The images of the micro-batch.
    Batch,
}

/// A preference method, as a function of the errors of one pair.
///
/// Loss of a batch: the mean of the pairs' losses. A link function applies once per pair, never to single elements
/// of an image and never to a batch mean; that is why this trait sees one pair at a time.
pub trait Objective: std::fmt::Debug + Send + Sync {
    /// The kebab-case name users type.
    fn name(&self) -> &'static str;

    /// Whether [`PairErrors::reference`] has to be filled in.
    fn needs_reference(&self) -> bool;

    /// Whether the loser's error takes part; without it the loser need not be evaluated at all.
    fn needs_loser(&self) -> bool {
        true
    }

    /// Whether [`PairErrors::residual_product`] has to be filled in.
    fn needs_residual_product(&self) -> bool {
        false
    }

    /// Whether [`PairContext::soft_label`] has to be filled in.
    fn needs_soft_label(&self) -> bool {
        false
    }

    /// Over which images [`PairContext::mean_gain`] has to be taken.
    fn mean_gain(&self) -> MeanGain {
        MeanGain::None
    }

    /// Whether single images with a [`Label`] are all it takes: [`Objective::loss_of_one`] then has an answer.
    fn is_unpaired(&self) -> bool {
        false
    }

    /// How noisy latents and regression targets are made.
    fn corruption(&self) -> Corruption;

    /// The loss of one pair, with its derivatives.
    ///
    /// # Panics
    /// If the objective needs a reference, a residual product or a soft label and none is given.
    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual;

    /// The number inside the sigmoid, positive where the model sides with the label; `None` without such a number.
    ///
    /// # Panics
    /// As [`Objective::loss`].
    fn logit(&self, errors: &PairErrors, context: &PairContext) -> Option<f64>;

    /// The loss of one labeled image with its derivative; `None` from a method of pairs, which
    /// [`Objective::is_unpaired`] tells apart. The image's error is the first variable of `error` whatever the label.
    fn loss_of_one(&self, _: Label, _error: Dual, _reference: f64, _: &PairContext) -> Option<Dual> {
        None
    }

    /// As [`Objective::logit`], for one labeled image: positive where the model sides with the label.
    fn logit_of_one(&self, _: Label, _error: f64, _reference: f64, _: &PairContext) -> Option<f64> {
        None
    }

    /// What the derivative in the loser's error is multiplied with, 0 to 1, where a safeguard holds losers back.
    ///
    /// # Panics
    /// As [`Objective::loss`].
    fn residual_factor(&self, _: &PairErrors) -> Option<f64> {
        None
    }

    /// The settings in full, defaults filled in; parsing them gives the same objective.
    fn settings(&self) -> serde_json::Value;

    /// Settings that are allowed and probably mistaken, one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An objective at one pair or one image, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The loss.
    pub loss: f64,
    /// Derivative of the loss with respect to the winner's error, or the only image's: its weight in back-propagation.
    pub d_winner: f64,
    /// Derivative of the loss with respect to the loser's error; 0 for a single image.
    pub d_loser: f64,
    /// See [`Objective::logit`].
    pub logit: Option<f64>,
    /// See [`Objective::residual_factor`].
    pub residual_factor: Option<f64>,
}

impl Outcome {
    fn new(loss: Dual, logit: Option<f64>, residual_factor: Option<f64>) -> Self {
        let Dual { value: loss, d: [d_winner, d_loser] } = loss;
        Self { loss, d_winner, d_loser, logit, residual_factor }
    }
}

/// The loss of one pair, its derivatives and its logit, from the errors as measured.
///
/// # Panics
/// As [`Objective::loss`]; an objective that needs a residual product takes [`evaluate_pair`].
pub fn evaluate(
    objective: &dyn Objective,
    winner: f64,
    loser: f64,
    reference: Option<(f64, f64)>,
    context: &PairContext,
) -> Outcome {
    evaluate_pair(objective, &PairErrors::new(winner, loser, reference), context)
}

/// The loss of one pair, its derivatives and its logit, from everything measured about it.
///
/// # Panics
/// As [`Objective::loss`].
pub fn evaluate_pair(objective: &dyn Objective, errors: &PairErrors, context: &PairContext) -> Outcome {
    let logit = objective.logit(errors, context);
    Outcome::new(objective.loss(errors, context), logit, objective.residual_factor(errors))
}

/// The loss of one labeled image, its derivative and its logit, from its error and the reference's as measured.
///
/// # Panics
/// If the objective is not [unpaired](Objective::is_unpaired).
pub fn evaluate_one(
    objective: &dyn Objective,
    label: Label,
    error: f64,
    reference: f64,
    context: &PairContext,
) -> Outcome {
    let loss = objective.loss_of_one(label, Dual::winner(error), reference, context);
    let loss = loss.expect("an objective of single images is asked about them");
    Outcome::new(loss, objective.logit_of_one(label, error, reference, context), None)
}
