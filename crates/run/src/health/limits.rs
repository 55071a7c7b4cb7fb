//! Where an alarm begins.

use tastemaker_math::objectives::{Corruption, Objective};

/// Steps that one look takes together: single steps are noise, for their timesteps differ.
pub const WINDOW: usize = 20;

/// Where alarms begin. Fractions are of the reference's error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Winners' error above the reference's by this fraction raises a warning, and a probe beyond it loses [`quality`](super::quality()).
    pub winner_warning: f64,
    /// By this fraction it is critical, and a probe has lost all quality.
    pub winner_critical: f64,
    /// Winners' error in a single step is ruined where it is above the reference's by this fraction...
    pub ruined_rise: f64,
    /// ...and by this much: a network that predicts nothing has an error of about 1, and small errors double easily.
    pub ruined_drift: f64,
    /// An error of one and a half times that of predicting nothing is ruined where it is above the reference's by half of
    /// that fraction...
    pub ruined_error: f64,
    /// ...or, without a reference, above that of the first step by this factor.
    pub ruined_factor: f64,
    /// Outputs longer than the reference's by this fraction raise a warning.
    pub norm_warning: f64,
    /// By this fraction it is critical.
    pub norm_critical: f64,
    /// A loss above its start by this factor raises a warning.
    pub loss_warning: f64,
    /// By this factor it is critical.
    pub loss_critical: f64,
    /// A loss above its start by this factor within the first [`WINDOW`] steps, when pairs still have logits near zero, is critical at
    /// once.
    pub loss_ruined: f64,
    /// Standard errors that a drift must be away from zero to count.
    pub standard_errors: f64,
    /// A loss that moved by less than this fraction has not moved.
    pub flat_change: f64,
    /// Logits of steps whose root mean square is below this are those of a policy that answers as the reference does.
    pub flat_logit: f64,
    /// Steps without movement, at a learning rate that no longer rises, before a loss is called flat.
    pub flat_steps: usize,
    /// A gradient this many times longer than usual is an explosion.
    pub gradient_factor: f64,
    /// Accuracy on training pairs from which the model may overfit; `None` where the method trains on other latents than
    /// probes look at, so that the two cannot be compared.
    pub overfitting: Option<f64>,
    /// Loss, as a fraction of the first one, below which it is saturated; `None` where the loss is no measure of progress.
    pub saturated: Option<f64>,
}

impl Default for Limits {
    /// Those of methods that train under forward noise.
    ///
    /// Measured on the embedded model with Diffusion-DPO, winners' error and fraction of comparisons won against the base: the demo's
    /// recipe +0.7%, 64%; four times its rate +2.3%, 64% after 12 steps and +27%, 69% after 96; a fifth of its beta +14%, 51%; ten times
    /// its rate +74%, 61% with a seventh of captions lost; fifteen times +151%, 52%; thirty times +360%, 26%.
    fn default() -> Self {
        Self {
            winner_warning: 0.02,
            winner_critical: 0.15,
            ruined_rise: 1.0,
            ruined_drift: 0.05,
            ruined_error: 1.5,
            ruined_factor: 2.0,
            norm_warning: 0.05,
            norm_critical: 0.25,
            loss_warning: 1.1,
            loss_critical: 2.0,
            loss_ruined: 3.0,
            standard_errors: 3.0,
            flat_change: 0.01,
            flat_logit: 0.05,
            flat_steps: 3 * WINDOW,
            gradient_factor: 10.0,
            overfitting: Some(0.9),
            saturated: Some(0.02),
        }
    }
}

impl Limits {
    /// Those of a method, on a flow or on a table of betas.
    ///
    /// A flow's error is of the velocity, noise and image in one, and the noise in it cannot be predicted away: the same harm is a smaller
    /// fraction of it at high noise levels and a larger one at low ones, so that single percents say less. A run that collapses passes a fifth
    /// within a few steps (X-GenGroup/Flow-Factory #108), which is critical here.
    ///
    /// A method that trains on inverted latents lets the error under forward noise rise without harm: DDIM-InPO on the embedded
    /// model ends at +5% and beats the base. Its limits are three times as far. Accuracies on training and held-out pairs are
    /// comparable only for a method that has a reference and trains under forward noise, as probes look.
    pub fn of(objective: &Objective, is_flow: bool) -> Self {
        let usual = Self::default();
        let usual =
            if is_flow { Self { winner_warning: 0.05, winner_critical: 0.2, ..usual } } else { usual };
        let is_inverted = objective.corruption() != Corruption::Forward;
        let farther = if is_inverted { 3.0 } else { 1.0 };
        Self {
            winner_warning: farther * usual.winner_warning,
            winner_critical: farther * usual.winner_critical,
            ruined_rise: farther * usual.ruined_rise,
            norm_warning: farther * usual.norm_warning,
            norm_critical: farther * usual.norm_critical,
            saturated: usual.saturated.filter(|_| !objective.is_detached()),
            overfitting: usual.overfitting.filter(|_| objective.needs().reference && !is_inverted),
            ..usual
        }
    }
}
