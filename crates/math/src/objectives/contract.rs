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
}

impl PairErrors {
    /// Errors as measured, set up for differentiation.
    pub fn new(winner: f64, loser: f64, reference: Option<(f64, f64)>) -> Self {
        Self { winner: Dual::winner(winner), loser: Dual::loser(loser), reference }
    }

    /// The reference's errors on (winner, loser).
    ///
    /// # Panics
    /// Without them: an objective that calls this answers `true` to [`Objective::needs_reference`].
    pub fn expect_reference(&self) -> (f64, f64) {
        self.reference.expect("an objective that needs a reference is given the reference errors")
    }
}

/// Where on the schedule a pair was looked at.
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
}

impl PairContext {
    /// What an objective is told about timestep `t` of a schedule.
    pub fn at(schedule: &NoiseSchedule, t: usize) -> Self {
        Self {
            timestep: t,
            n_train_timesteps: schedule.len(),
            alpha_bar: schedule.alpha_bar(t),
            clean_gain: schedule.implied_target_coefficients(t).clean.powi(2),
        }
    }

    /// Signal-to-noise ratio at the timestep.
    pub fn snr(&self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }
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

    /// How noisy latents and regression targets are made.
    fn corruption(&self) -> Corruption;

    /// The loss of one pair, with its derivatives.
    ///
    /// # Panics
    /// If the objective needs a reference and the errors hold none.
    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual;

    /// The number inside the sigmoid, positive where the model sides with the label; `None` without such a number.
    ///
    /// # Panics
    /// As [`Objective::loss`].
    fn logit(&self, errors: &PairErrors, context: &PairContext) -> Option<f64>;

    /// The settings in full, defaults filled in; parsing them gives the same objective.
    fn settings(&self) -> serde_json::Value;

    /// Settings that are allowed and probably mistaken, one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An objective at one pair, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The loss.
    pub loss: f64,
    /// Derivative of the loss with respect to the winner's error: its weight in back-propagation.
    pub d_winner: f64,
    /// Derivative of the loss with respect to the loser's error.
    pub d_loser: f64,
    /// See [`Objective::logit`].
    pub logit: Option<f64>,
}

/// The loss of one pair, its derivatives and its logit, from the errors as measured.
///
/// # Panics
/// As [`Objective::loss`].
pub fn evaluate(
    objective: &dyn Objective,
    winner: f64,
    loser: f64,
    reference: Option<(f64, f64)>,
    context: &PairContext,
) -> Outcome {
    let errors = PairErrors::new(winner, loser, reference);
    let Dual { value: loss, d: [d_winner, d_loser] } = objective.loss(&errors, context);
    Outcome { loss, d_winner, d_loser, logit: objective.logit(&errors, context) }
}
