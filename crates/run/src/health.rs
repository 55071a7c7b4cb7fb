//! Is it learning? Judgements on the figures of a run, in words.
//!
//! A loss curve of these methods says little: it starts at ln 2 and moves by percents while a model is made
//! or ruined. What says something is where the errors go, against the reference.

use std::fmt;

use crate::Step;

/// Steps that one look takes together: single steps are noise, for their timesteps differ.
pub const WINDOW: usize = 20;

/// Winners' error above the reference's by this share is an alarm.
pub const WINNER_RISE: f64 = 0.01;

/// A loss that moved by less than this share has not moved.
pub const FLAT_CHANGE: f64 = 0.01;

/// Windows without movement before a loss is called flat.
pub const FLAT_WINDOWS: usize = 3;

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Alarm {
    /// A figure is NaN or infinite; the weights are lost from here on.
    NonFinite {
        /// The first such step.
        step: u64,
        /// Which figure, as it is called in the log.
        figure: &'static str,
        /// Its value.
        value: f64,
    },
    /// The margin grows although winners are denoised worse than by the reference: losers are only getting
    /// worse faster.
    WinnerErrorRises {
        /// The last step looked at.
        step: u64,
        /// How far winners' error is above the reference's, as a share of it.
        rise: f64,
    },
    /// Neither loss nor margin has moved.
    FlatLoss {
        /// The last step looked at.
        step: u64,
        /// The loss it stays at.
        loss: f64,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFinite { step, figure, value } => write!(
                f,
                "step {step}: {figure} is {value}; the run cannot recover, go back to the last good checkpoint and lower learning_rate"
            ),
            Self::WinnerErrorRises { step, rise } => write!(
                f,
                "step {step}: the error on winners is {:.1}% above the reference's while the margin grows: the model gets worse at both \
                 images, only faster at losers; stop earlier, lower learning_rate or raise beta",
                100.0 * rise
            ),
            Self::FlatLoss { step, loss } => write!(
                f,
                "step {step}: the loss stays at {loss:.4} and the margin at zero: the model has not moved from its start; \
                 raise learning_rate, or check warm-up and which layers learn"
            ),
        }
    }
}

/// Looks at the steps so far, oldest first, and says what is wrong now.
///
/// A non-finite figure is reported alone, for nothing after it means anything. The other judgements need two
/// or more windows of steps and a method with a margin; they concern the last window, so an alarm goes when
/// its cause does.
pub fn judge(steps: &[Step]) -> Vec<Alarm> {
    if let Some(alarm) = steps.iter().find_map(non_finite) {
        return vec![alarm];
    }
    [winner_error_rises(steps), flat_loss(steps)].into_iter().flatten().collect()
}

fn non_finite(step: &Step) -> Option<Alarm> {
    let figures = [
        ("loss", Some(step.loss)),
        ("winner_error", Some(step.winner_error)),
        ("loser_error", step.loser_error),
        ("ref_winner", step.ref_winner),
        ("ref_loser", step.ref_loser),
        ("logit_mean", step.logit_mean),
        ("margin", step.margin),
        ("grad_norm", Some(step.grad_norm)),
    ];
    let (figure, value) = figures
        .into_iter()
        .find_map(|(figure, value)| value.filter(|value| !value.is_finite()).map(|value| (figure, value)))?;
    Some(Alarm::NonFinite { step: step.step, figure, value })
}

fn winner_error_rises(steps: &[Step]) -> Option<Alarm> {
    let before = steps.len().checked_sub(2 * WINDOW)?;
    let (earlier, latest) = steps[before..].split_at(WINDOW);
    let reference = mean(latest, |step| step.ref_winner)?;
    let rise = mean(latest, |step| Some(step.winner_error))? / reference - 1.0;
    let (margin_before, margin) = (mean(earlier, |step| step.margin)?, mean(latest, |step| step.margin)?);
    let grows = margin > 0.0 && margin > margin_before;
    (rise > WINNER_RISE && grows).then(|| Alarm::WinnerErrorRises { step: latest[WINDOW - 1].step, rise })
}

fn flat_loss(steps: &[Step]) -> Option<Alarm> {
    if steps.len() < FLAT_WINDOWS * WINDOW {
        return None;
    }
    let latest = &steps[steps.len() - WINDOW..];
    let start = mean(&steps[..WINDOW], |step| Some(step.loss))?;
    let loss = mean(latest, |step| Some(step.loss))?;
    let is_still = (loss - start).abs() <= FLAT_CHANGE * start.abs();

    // The margin is at zero if its mean is within two standard errors of it.
    let margin = mean(latest, |step| step.margin)?;
    let variance = mean(latest, |step| step.margin.map(|value| (value - margin).powi(2)))?;
    let is_at_zero = margin.abs() <= 2.0 * (variance / WINDOW as f64).sqrt();
    (is_still && is_at_zero).then(|| Alarm::FlatLoss { step: latest[WINDOW - 1].step, loss })
}

/// The mean of a figure, if every step has it.
fn mean(steps: &[Step], figure: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
    let sum = steps.iter().map(figure).sum::<Option<f64>>()?;
    Some(sum / steps.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors drift linearly: winners by `winner`, losers by `loser` per step, around a reference of 0.2.
    fn run(n: u64, winner: f64, loser: f64) -> Vec<Step> {
        (0..n)
            .map(|step| {
                let (winner, loser) = (winner * step as f64, loser * step as f64);
                // A margin that is exactly zero in the mean and never in a step, as measured ones are.
                let wobble = if step % 2 == 0 { 1e-5 } else { -1e-5 };
                let margin = loser - winner + wobble;
                Step {
                    step,
                    loss: (1.0 + (-2500.0 * margin).exp()).ln(),
                    winner_error: 0.2 + winner,
                    loser_error: Some(0.2 + loser),
                    ref_winner: Some(0.2),
                    ref_loser: Some(0.2),
                    logit_mean: Some(2500.0 * margin),
                    implicit_accuracy: Some(0.5),
                    margin: Some(margin),
                    grad_norm: 1.0,
                    lr: 1e-5,
                    pairs_per_second: 1.0,
                }
            })
            .collect()
    }

    #[test]
    fn a_run_that_learns_raises_no_alarm() {
        assert_eq!(judge(&run(200, -1e-5, 1e-5)), []);
    }

    #[test]
    fn winners_rising_with_the_margin_is_an_alarm() {
        let alarms = judge(&run(100, 1e-4, 2e-4));
        assert!(
            matches!(alarms[..], [Alarm::WinnerErrorRises { step: 99, rise }] if (0.04..0.05).contains(&rise))
        );
        assert!(alarms[0].to_string().contains("4.5% above the reference's"), "{}", alarms[0]);
    }

    #[test]
    fn both_errors_rising_without_margin_is_not_that_alarm() {
        let alarms = judge(&run(100, 1e-4, 0.5e-4));
        assert!(!alarms.iter().any(|alarm| matches!(alarm, Alarm::WinnerErrorRises { .. })), "{alarms:?}");
    }

    #[test]
    fn a_rise_below_one_percent_is_no_alarm() {
        assert_eq!(judge(&run(100, 1e-5, 4e-5)), []);
    }

    #[test]
    fn a_model_that_does_not_move_is_flat_but_not_at_once() {
        assert!(matches!(judge(&run(60, 0.0, 0.0))[..], [Alarm::FlatLoss { step: 59, .. }]));
        assert_eq!(judge(&run(59, 0.0, 0.0)), []);
    }

    #[test]
    fn a_flat_loss_with_a_moving_margin_is_not_flat() {
        let mut steps = run(100, -1e-6, 1e-6);
        steps.iter_mut().for_each(|step| step.loss = 0.693);
        assert_eq!(judge(&steps), []);
    }

    #[test]
    fn a_method_without_margin_is_judged_on_its_figures_being_numbers() {
        let mut steps = run(100, 1e-4, 2e-4);
        steps.iter_mut().for_each(|step| step.margin = None);
        assert_eq!(judge(&steps), []);
    }

    #[test]
    fn the_first_non_finite_figure_is_named_and_nothing_else() {
        let mut steps = run(100, 1e-4, 2e-4);
        steps[31].grad_norm = f64::INFINITY;
        steps[40].loss = f64::NAN;
        let alarms = judge(&steps);
        assert_eq!(alarms, [Alarm::NonFinite { step: 31, figure: "grad_norm", value: f64::INFINITY }]);
        assert!(alarms[0].to_string().starts_with("step 31: grad_norm is inf"));
    }

    #[test]
    fn no_steps_are_healthy() {
        assert_eq!(judge(&[]), []);
    }
}
