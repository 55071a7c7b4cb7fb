//! What a report holds: plain values, filled in by whoever ran the comparison.

use crate::EvalError;
use crate::scorers::{CheckRow, ScorerCheck};
use crate::winrate::{Split, WinRate};
use image::{ImageEncoder, RgbImage, codecs::png};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tastemaker_math::intervals::mean;

/// A comparison of aligned models with the base they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// Name of the task, as in `--task`.
    pub task: String,
    /// What the winners of the training pairs have in common, to stand after "The pairs prefer".
    pub goal: String,
    /// Seed of the whole run.
    pub seed: u64,
    /// Settings, versions, hashes and machine facts, printed as given.
    pub settings: Vec<Fact>,
    /// The share of pictures that meet the goal, where the judge can tell.
    pub target: Option<TargetShare>,
    /// How the base paints.
    pub base: Split<Shares>,
    /// The aligned models, the control among them, in the order to be shown.
    pub methods: Vec<Method>,
    /// The same prompts and the same starting noise, painted by everyone.
    pub pictures: PictureGrid,
    /// What the judge is, in a sentence or two.
    pub judge: String,
    /// Unit of the judge's score, such as "nats".
    pub score_unit: String,
    /// How the judge reads real art that was disturbed.
    pub judge_check: Vec<CheckRow>,
    /// What the learnt preference scorer learnt from and how it ranks held-out art, if there is one.
    pub scorer_check: Option<ScorerCheck>,
    /// What went wrong during the run, beyond what the figures themselves show.
    pub alarms: Vec<Alarm>,
}

/// A named value, printed as given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Fact {
    /// A fact from anything that can be printed.
    pub fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.to_owned(), value: value.to_string() }
    }
}

/// The share of pictures that meet the goal of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetShare {
    /// Field of the summary, such as `style_share` or `unsafe_share`.
    pub field: String,
    /// Column heading, such as "Fluent Flat share".
    pub label: String,
}

/// How a model paints, counted over pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Number of pictures.
    pub n: usize,
    /// Share whose caption the judge names.
    pub caption_accuracy: f64,
    /// Share that meets the goal of the task.
    pub target_share: Option<f64>,
}

/// One aligned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Kebab-case name.
    pub name: String,
    /// Name for people.
    pub label: String,
    /// Whether this is the control that only imitates winners.
    pub is_control: bool,
    /// Learning rate, beta and the like.
    pub settings: Vec<Fact>,
    /// How it was trained.
    pub training: Training,
    /// How it paints; `None` when training failed before anything could be painted.
    pub outcome: Option<Outcome>,
    /// Why training or evaluation ended early, if it did.
    pub failure: Option<String>,
}

/// What the judge found about one aligned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it paints.
    pub shares: Split<Shares>,
    /// Against the base, with the same prompts and starting noise.
    pub versus_base: Split<WinRate>,
    /// Against every other method that has painted, by its name, with the same prompts and starting noise.
    pub versus_methods: BTreeMap<String, Split<WinRate>>,
    /// Against the base on held-out captions, the same pictures scored by the learnt preference scorer.
    pub versus_base_by_scorer: Option<WinRate>,
}

/// What training took, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Optimiser steps taken.
    pub steps: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Highest memory use, where it was measured.
    pub peak_memory_bytes: Option<u64>,
    /// The course of training, in order of steps.
    pub curve: Vec<CurvePoint>,
}

/// Training figures at one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Optimiser step.
    pub step: u64,
    /// Loss of the method, in its own unit.
    pub loss: f64,
    /// Share of pairs whose winner the model already prefers more than the reference does.
    pub implicit_accuracy: Option<f64>,
    /// Squared error on winners over that of the reference.
    pub winner_error_ratio: Option<f64>,
    /// Squared error on losers over that of the reference.
    pub loser_error_ratio: Option<f64>,
}

/// Pictures side by side: rows are painters, columns are prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PictureGrid {
    /// How the prompts shown were chosen, as a sentence.
    pub choice: String,
    /// The prompts, left to right.
    pub columns: Vec<PictureColumn>,
    /// The painters, top to bottom.
    pub rows: Vec<PictureRow>,
}

/// One prompt of the picture grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureColumn {
    /// The prompt.
    pub prompt: String,
    /// Whether the prompt was held out of the training pairs.
    pub held_out: bool,
}

/// One painter of the picture grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureRow {
    /// Who painted it, for people.
    pub label: String,
    /// Name of the method, for its colour; `None` for real art and the base.
    pub method: Option<String>,
    /// One picture per column; `None` where there is none.
    pub pictures: Vec<Option<Picture>>,
}

/// A picture as the bytes of a PNG file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The PNG file.
    pub png: Vec<u8>,
}

impl Picture {
    /// Encodes a picture. Equal pictures give equal bytes.
    ///
    /// # Errors
    /// If the picture has no pixels.
    pub fn new(image: &RgbImage) -> Result<Self, EvalError> {
        let mut bytes = Vec::new();
        png::PngEncoder::new_with_quality(&mut bytes, png::CompressionType::Best, png::FilterType::Adaptive)
            .write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8)?;
        Ok(Self { png: bytes })
    }
}

/// Something a reader must not miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// How bad it is.
    pub severity: Severity,
    /// Label of the method it is about, if it is about one.
    pub method: Option<String>,
    /// What happened, as a sentence.
    pub what: String,
}

/// How bad an alarm is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A method failed or made things worse.
    Failure,
    /// A claim is not supported, or a guard was crossed.
    Warning,
    /// Worth knowing.
    Remark,
}

impl Method {
    /// Winner and loser error over the reference's at the end of training: means over the last tenth of the recorded
    /// steps, because a single batch says little.
    pub fn final_error_ratios(&self) -> (Option<f64>, Option<f64>) {
        let last = |figure: fn(&CurvePoint) -> Option<f64>| {
            let recorded: Vec<f64> = self.training.curve.iter().filter_map(figure).collect();
            mean(&recorded[recorded.len() - recorded.len().div_ceil(10)..])
        };
        (last(|point| point.winner_error_ratio), last(|point| point.loser_error_ratio))
    }
}

impl Report {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// Repeated method names, picture rows of the wrong length, or a picture row of an unknown method.
    pub fn validate(&self) -> Result<(), EvalError> {
        let refuse = |what| Err(EvalError::InconsistentReport { what });
        for (index, method) in self.methods.iter().enumerate() {
            if self.methods[..index].iter().any(|earlier| earlier.name == method.name) {
                return refuse(format!("two methods are named {:?}", method.name));
            }
        }
        for row in &self.pictures.rows {
            if row.pictures.len() != self.pictures.columns.len() {
                let (found, wanted) = (row.pictures.len(), self.pictures.columns.len());
                return refuse(format!(
                    "picture row {:?} has {found} pictures for {wanted} prompts",
                    row.label
                ));
            }
            if let Some(name) = &row.method
                && self.methods.iter().all(|method| method.name != *name)
            {
                return refuse(format!("picture row {:?} names unknown method {name:?}", row.label));
            }
        }
        Ok(())
    }
}
