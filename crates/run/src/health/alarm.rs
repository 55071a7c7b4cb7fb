//! What can be wrong with a run, in words, and what follows from it.

use std::fmt;

use serde::{Deserialize, Serialize};
use tastemaker_math::number;

use crate::AlarmRaised;

/// What a run does about its alarms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Log them and continue.
    #[default]
    Warn,
    /// Save and end the run at a critical alarm.
    Stop,
    /// Continue to the end; the result is the state whose held-out pairs had the best [`quality`](super::quality()).
    KeepBest,
}

impl Rule {
    /// Whether the run ends because of this alarm.
    pub fn ends(self, alarm: &Alarm) -> bool {
        self == Self::Stop && alarm.severity() == Severity::Critical
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A person should look at it; the run may come out well.
    Warning,
    /// The model is being ruined.
    Critical,
}

/// Something that a person should look at. Rises are fractions of the reference's error, accuracies fractions of pairs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Alarm {
    /// A metric is NaN or infinite.
    NonFinite {
        /// The step.
        step: u64,
        /// Which metric, as it is called in the log.
        metric: &'static str,
        /// Its value.
        value: f64,
    },
    /// Winners that are trained on are denoised worse than by the reference.
    WinnersWorse {
        /// The last step looked at.
        step: u64,
        /// How far their error is above the reference's, or above that of the first step where there is none.
        rise: f64,
        /// Whether there is a reference.
        has_reference: bool,
        /// Whether losers get worse still faster, so that the margin grows.
        margin_grows: bool,
        /// Whether it is beyond the critical limit.
        critical: bool,
    },
    /// Winners that were held out are denoised worse than before the first step.
    HeldOutWinnersWorse {
        /// Optimizer steps made.
        step: u64,
        /// How far their error is above that before the first step.
        rise: f64,
        /// Whether losers get worse still faster, so that the margin grows.
        margin_grows: bool,
        /// Whether it is beyond the critical limit.
        critical: bool,
    },
    /// The network's outputs are longer than they were.
    NormGrows {
        /// The last step looked at.
        step: u64,
        /// By which fraction of the reference's, or of those of the first steps where no reference answers.
        growth: f64,
        /// Whether they are compared with the reference's.
        has_reference: bool,
        /// Whether it is beyond the critical limit.
        critical: bool,
    },
    /// The loss is higher than where it started.
    LossRises {
        /// The last step looked at.
        step: u64,
        /// Its mean over the window.
        loss: f64,
        /// What it is where policy and reference agree.
        start: f64,
        /// Whether it is beyond the critical limit.
        critical: bool,
    },
    /// Fewer held-out pairs are ranked correctly than at the best probe, beyond noise and at two probes in a row.
    AccuracyFalls {
        /// Optimizer steps made.
        step: u64,
        /// The accuracy now.
        accuracy: f64,
        /// That of the best probe.
        best: f64,
        /// Where that was.
        best_step: u64,
    },
    /// Pairs that are trained on are ranked correctly, held-out ones far less often.
    Overfitting {
        /// Optimizer steps made.
        step: u64,
        /// Accuracy on pairs trained on.
        trained: f64,
        /// Accuracy on held-out pairs.
        held_out: f64,
    },
    /// The gradient is many times as long as it was.
    GradientExplodes {
        /// The last step looked at.
        step: u64,
        /// Its median length over the last five steps.
        norm: f64,
        /// Its median length before.
        usual: f64,
    },
    /// Steps are skipped, since gradients in fp16 are not finite.
    StepsSkipped {
        /// The last step looked at.
        step: u64,
        /// How many of the last [`WINDOW`](super::WINDOW).
        n: usize,
    },
    /// Neither loss nor logits have moved.
    FlatLoss {
        /// The last step looked at.
        step: u64,
        /// The loss it stays at.
        loss: f64,
    },
    /// Every pair is ranked correctly with certainty.
    Saturated {
        /// The last step looked at.
        step: u64,
        /// Mean loss.
        loss: f64,
        /// Accuracy on pairs trained on.
        accuracy: f64,
    },
    /// The learning rate is far from all published ones.
    LearningRate {
        /// The effective one.
        found: f64,
        /// The lowest and the highest published.
        published: (f64, f64),
        /// Where.
        source: &'static str,
    },
    /// The method's beta is far from all published ones.
    Beta {
        /// The plan's.
        found: f64,
        /// The lowest and the highest published.
        published: (f64, f64),
        /// Where.
        source: &'static str,
    },
}

/// An alarm as the list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmEntry {
    /// Its stable name.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub summary: &'static str,
}

const fn entry(name: &'static str, summary: &'static str) -> AlarmEntry {
    AlarmEntry { name, summary }
}

/// All alarms, critical ones first.
pub static ALARMS: &[AlarmEntry] = &[
    entry("non-finite", "A metric of a step is NaN or infinite."),
    entry("winners-worse", "The model denoises the winners it trains on worse than the reference does."),
    entry(
        "held-out-winners-worse",
        "The model denoises held-out winners worse than it did before the first step.",
    ),
    entry("norm-grows", "The network's outputs are longer than the reference's, or than in the first steps."),
    entry("loss-rises", "The loss of a method with a reference is above ln 2, where it started."),
    entry("accuracy-falls", "Fewer held-out pairs are ranked correctly than before, beyond noise."),
    entry("gradient-explodes", "The gradient norm is ten times larger than before."),
    entry("steps-skipped", "Most steps are skipped, since gradients in fp16 are not finite."),
    entry("overfitting", "Training pairs are ranked correctly, held-out ones far less often."),
    entry("flat-loss", "Neither loss nor logits have moved from the start."),
    entry("saturated", "Every training pair is ranked correctly with certainty."),
    entry("learning-rate", "The learning rate is far from all published ones."),
    entry("beta", "The method's beta is far from all published ones."),
];

impl Alarm {
    /// Its stable name, that of its entry in [`ALARMS`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::NonFinite { .. } => "non-finite",
            Self::WinnersWorse { .. } => "winners-worse",
            Self::HeldOutWinnersWorse { .. } => "held-out-winners-worse",
            Self::NormGrows { .. } => "norm-grows",
            Self::LossRises { .. } => "loss-rises",
            Self::AccuracyFalls { .. } => "accuracy-falls",
            Self::Overfitting { .. } => "overfitting",
            Self::GradientExplodes { .. } => "gradient-explodes",
            Self::StepsSkipped { .. } => "steps-skipped",
            Self::FlatLoss { .. } => "flat-loss",
            Self::Saturated { .. } => "saturated",
            Self::LearningRate { .. } => "learning-rate",
            Self::Beta { .. } => "beta",
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NonFinite { .. }
            | Self::NormGrows { critical: true, .. }
            | Self::LossRises { critical: true, .. }
            | Self::AccuracyFalls { .. }
            | Self::GradientExplodes { .. }
            | Self::StepsSkipped { .. }
            | Self::WinnersWorse { critical: true, .. }
            | Self::HeldOutWinnersWorse { critical: true, .. } => Severity::Critical,
            _ => Severity::Warning,
        }
    }

    /// The step it concerns; 0 for what a plan says.
    pub fn step(&self) -> u64 {
        match *self {
            Self::NonFinite { step, .. }
            | Self::WinnersWorse { step, .. }
            | Self::HeldOutWinnersWorse { step, .. }
            | Self::NormGrows { step, .. }
            | Self::LossRises { step, .. }
            | Self::AccuracyFalls { step, .. }
            | Self::Overfitting { step, .. }
            | Self::GradientExplodes { step, .. }
            | Self::StepsSkipped { step, .. }
            | Self::FlatLoss { step, .. }
            | Self::Saturated { step, .. } => step,
            Self::LearningRate { .. } | Self::Beta { .. } => 0,
        }
    }

    /// As the log keeps it.
    pub fn raised(&self) -> AlarmRaised {
        AlarmRaised { step: self.step(), name: Some(self.name().to_owned()), message: self.to_string() }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFinite { step, metric, value } => write!(
                f,
                "step {step}: {metric} is {value}: nothing after it means anything; go back to the last good checkpoint and lower learning_rate"
            ),
            Self::WinnersWorse { step, rise, has_reference, margin_grows, .. } => {
                let how = displacement(*margin_grows);
                let whose = if *has_reference { "the reference's" } else { "the first step's" };
                write!(f, "step {step}: the error on winners is {} above {whose}{how}", percent(*rise))
            }
            Self::HeldOutWinnersWorse { step, rise, margin_grows, .. } => {
                let how = displacement(*margin_grows);
                write!(
                    f,
                    "step {step}: the error on held-out winners is {} above the start's{how}",
                    percent(*rise)
                )
            }
            Self::NormGrows { step, growth, has_reference, .. } => {
                let whose = if *has_reference { "the reference's" } else { "those of the first steps" };
                write!(
                    f,
                    "step {step}: the network's outputs are {} longer than {whose}: it exaggerates what it predicts, which shows as \
                     burnt colors; lower learning_rate, or hold it by anchor_weight",
                    percent(*growth)
                )
            }
            Self::LossRises { step, loss, start, .. } => write!(
                f,
                "step {step}: the loss is {loss:.3}, above the {start:.3} it started at: some pairs are pushed far the wrong way while \
                 others are learned; lower learning_rate"
            ),
            Self::AccuracyFalls { step, accuracy, best, best_step } => write!(
                f,
                "step {step}: {} of held-out pairs are ranked correctly, {} were at step {best_step}: what is learned now does not carry \
                 over to other captions; take the earlier state, or train for fewer steps",
                percent(*accuracy),
                percent(*best)
            ),
            Self::Overfitting { step, trained, held_out } => write!(
                f,
                "step {step}: {} of the pairs trained on are ranked correctly, but {} of held-out ones: the model overfits; \
                 train for fewer steps or on more pairs",
                percent(*trained),
                percent(*held_out)
            ),
            Self::GradientExplodes { step, norm, usual } => write!(
                f,
                "step {step}: the gradient is {norm:.3} long, {usual:.3} was usual: training is leaving the region where its steps are \
                 safe; lower learning_rate or give it warm-up"
            ),
            Self::StepsSkipped { step, n } => write!(
                f,
                "step {step}: {n} of the last {} steps were skipped, since their fp16 gradients were not finite: training stands still; \
                 use bf16, or lower learning_rate",
                super::WINDOW
            ),
            Self::FlatLoss { step, loss } => write!(
                f,
                "step {step}: the loss stays at {loss:.4} and every logit near zero: the model answers as it did before the first step; \
                 raise learning_rate, or check which layers are trained"
            ),
            Self::Saturated { step, loss, accuracy } => write!(
                f,
                "step {step}: the loss is {loss:.5} with {} of pairs ranked correctly: the loss is saturated; \
                 stop here, or raise beta to stay nearer to the reference",
                percent(*accuracy)
            ),
            Self::LearningRate { found, published, source } => {
                let text = |rate: f64| format!("{rate:e}");
                write!(f, "learning rate {found:e} {}", far_from(*found, *published, text, source))
            }
            Self::Beta { found, published, source } => {
                write!(f, "beta {} {}", number(*found), far_from(*found, *published, number, source))
            }
        }
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.1}%", 100.0 * fraction)
}

fn displacement(margin_grows: bool) -> &'static str {
    if margin_grows {
        " while the margin grows: the model gets worse at both images, only faster at losers; stop earlier, lower learning_rate or \
         raise beta"
    } else {
        " and the margin does not grow: the model gets worse without learning the preference; stop earlier or lower learning_rate"
    }
}

fn far_from(found: f64, (low, high): (f64, f64), text: impl Fn(f64) -> String, source: &str) -> String {
    let range = if low == high { text(low) } else { format!("{} to {}", text(low), text(high)) };
    let (side, change) = if found > high { ("above", "lower") } else { ("below", "raise") };
    format!("is far {side} the published {range} ({source}); {change} it unless this is meant")
}
