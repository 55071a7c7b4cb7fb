//! What happens in a run.

use std::collections::BTreeMap;
use std::ops::Not;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tastemaker_math::intervals::{Z_95, wilson};

use crate::number;

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Training begins, or is resumed.
    Start(Start),
    /// Images are being read, to find out which cannot be.
    Read(Read),
    /// Another process makes what this one needs in this folder, and it waits for that. The log does not hold it.
    Waiting {
        /// The folder.
        path: PathBuf,
    },
    /// Images and captions are being encoded.
    Encode(Encode),
    /// The reference's errors are being computed beforehand.
    #[serde(alias = "bank")]
    Reference(Reference),
    /// A pair that cannot be used was skipped.
    #[serde(alias = "left_out")]
    Skipped(Skipped),
    /// One optimizer step was made.
    Step(Step),
    /// The model was validated on held-out pairs.
    #[serde(rename = "validation", alias = "probe")]
    Probe(Probe),
    /// Something that a person should look at.
    Alarm(AlarmRaised),
    /// The state of the run was saved; it can be resumed from here.
    Checkpoint {
        /// Optimizer steps made so far.
        step: u64,
        /// Where, below the folder of the run.
        path: PathBuf,
        /// Whether it is the one to keep under [`Rule::KeepBest`](crate::health::Rule::KeepBest).
        #[serde(default, skip_serializing_if = "Not::not")]
        best: bool,
    },
    /// Images of the validation prompts were generated.
    #[serde(alias = "pictures")]
    Images {
        /// Optimizer steps made so far.
        step: u64,
        /// The files, below the folder of the run.
        paths: Vec<PathBuf>,
    },
    /// Training is going to end before its last step.
    Stopping {
        /// Optimizer steps made so far.
        step: u64,
        /// Why, in words.
        reason: String,
    },
    /// Something worth knowing once, with nothing to do about it.
    Note {
        /// What, in words.
        text: String,
    },
    /// Training ended.
    Finish(Finish),
}

/// What a run begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Version of the program.
    pub version: String,
    /// Release of libtorch, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
    /// Name of the preference method.
    pub method: String,
    /// The device, in words.
    pub device: String,
    /// Pairs trained on.
    pub n_pairs: u64,
    /// Pairs held out.
    pub n_held_out: u64,
    /// Rows skipped because neither image won.
    pub n_ties: u64,
    /// Rows skipped for other reasons.
    #[serde(default, alias = "n_left_out")]
    pub n_skipped: u64,
    /// The first step that will be made; 0 unless the run was resumed.
    pub step: u64,
    /// The method's beta in each convention that programs count it in, by its name; see [`Plan::betas`](crate::Plan::betas).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub betas: BTreeMap<String, f64>,
    /// Most memory this process held while it opened the model and encoded the pairs, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// How far the reading is. The log does not hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Pairs read so far.
    pub n_done: u64,
    /// Pairs that this process reads.
    pub n_pairs: u64,
}

/// How far the encoding is. The log holds its end alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encode {
    /// Pairs read so far.
    pub n_done: u64,
    /// Pairs in all.
    pub n_pairs: u64,
    /// Distinct images so far; each is encoded once.
    #[serde(alias = "n_pictures")]
    pub n_images: u64,
}

/// How far the precomputed reference is. The log does not hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Steps computed so far.
    pub n_done: u64,
    /// Steps that were missing.
    pub n_steps: u64,
}

/// A pair that was skipped, for an image of it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its identity.
    pub pair: u64,
    /// How its source calls it.
    pub place: String,
    /// What was found.
    pub detail: String,
}

/// An alarm, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRaised {
    /// The step it concerns.
    pub step: u64,
    /// Its name among [`ALARMS`](crate::health::ALARMS); logs of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was found and what to do, as [`Alarm`](crate::health::Alarm) prints it.
    pub message: String,
}

/// The metrics of one optimizer step, means over its pairs. Errors are mean squared errors per latent
/// element.
///
/// Absent are the metrics a method does not have: without a reference no `ref_*`, without a logit no
/// accuracy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step, from 0.
    pub step: u64,
    /// The objective.
    #[serde(with = "number")]
    pub loss: f64,
    /// The policy's error on winners.
    #[serde(with = "number")]
    pub winner_error: f64,
    /// The policy's error on losers.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub loser_error: Option<f64>,
    /// The reference's error on winners.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub ref_winner: Option<f64>,
    /// The reference's error on losers.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub ref_loser: Option<f64>,
    /// The number inside the sigmoid, positive where the model sides with the label.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub logit_mean: Option<f64>,
    /// Fraction of pairs with a positive logit, ties counting half.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub implicit_accuracy: Option<f64>,
    /// `(loser_error - winner_error) - (ref_loser - ref_winner)`: how much more the policy prefers winners
    /// than the reference does.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The margin of the pairs whose timestep lies in each quarter of the schedule, least noise first; empty where there is no
    /// such pair.
    #[serde(with = "number::quarters", default, skip_serializing_if = "Option::is_none")]
    pub margin_by_quarter: Option<[Option<f64>; 4]>,
    /// Mean factor of the safeguard on losers' gradients, where one is set.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub residual_factor: Option<f64>,
    /// Root mean square of the policy's outputs over all images; logs of earlier versions do not say it.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub prediction_norm: Option<f64>,
    /// That of the reference's outputs, where it answered in this step.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub ref_norm: Option<f64>,
    /// The method's beta in this step, where it follows margins.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Length of the gradient before clipping.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// The learning rate.
    #[serde(with = "number")]
    pub lr: f64,
    /// Pairs trained on per second.
    #[serde(with = "number")]
    pub pairs_per_second: f64,
    /// The factor on the loss, in fp16.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Whether the weights were left as they were, since an fp16 gradient was not finite.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub skipped: bool,
}

impl Step {
    /// How far the policy's outputs are longer than the reference's, as a fraction of those.
    pub fn norm_growth(&self) -> Option<f64> {
        Some(self.prediction_norm? / self.ref_norm.filter(|&norm| norm > 0.0)? - 1.0)
    }
}

/// The metrics of held-out pairs under forward noise at draws that never change, so that curves of all methods
/// are comparable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Optimizer steps made so far.
    pub step: u64,
    /// Pairs validated on.
    pub n_pairs: u64,
    /// The policy's error on winners.
    #[serde(with = "number")]
    pub winner_error: f64,
    /// The policy's error on losers.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub loser_error: Option<f64>,
    /// The error on winners of the model as it was before the first step.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub ref_winner: Option<f64>,
    /// The error on losers of the model as it was before the first step.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub ref_loser: Option<f64>,
    /// Fraction of pairs with a positive margin, ties counting half.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub implicit_accuracy: Option<f64>,
    /// The lower end of the 95% Wilson interval of `implicit_accuracy`.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub accuracy_low: Option<f64>,
    /// Its upper end.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub accuracy_high: Option<f64>,
    /// As in [`Step::margin`].
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Standard error of the mean of `winner_error - ref_winner` over the pairs.
    #[serde(with = "number::optional", default, skip_serializing_if = "Option::is_none")]
    pub winner_drift_se: Option<f64>,
}

impl Probe {
    /// Fills in the interval of the accuracy, which follows from it and the number of pairs.
    #[must_use]
    pub fn with_interval(self) -> Self {
        let interval =
            self.implicit_accuracy.and_then(|rate| wilson(rate * self.n_pairs as f64, self.n_pairs, Z_95));
        Self { accuracy_low: interval.map(|i| i.low), accuracy_high: interval.map(|i| i.high), ..self }
    }

    /// How far the error on winners is above that before the first step, as a fraction of it.
    pub fn winner_rise(&self) -> Option<f64> {
        self.ref_winner
            .filter(|&reference| reference > 0.0)
            .map(|reference| self.winner_error / reference - 1.0)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// Optimizer steps made in all.
    pub step: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds since the last [`Start`].
    #[serde(with = "number")]
    pub seconds: f64,
    /// Most memory held at once, where the device tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Most memory that the device's allocator has taken of it at once; none on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_reserved_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All steps were made.
    Completed,
    /// The user stopped it.
    Stopped,
    /// It failed, for this reason.
    Failed(String),
}
