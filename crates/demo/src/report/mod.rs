//! The demo's report: a comparison of the aligned models with the base, and what their training and the judge are worth.

mod assemble;
mod findings;
mod sections;
mod table;

pub(crate) use assemble::{MethodResult, Trained, comparison, details};
pub use findings::{CAPTION_ACCURACY_TOLERANCE, Finding, Severity, WINNER_DRIFT_LIMIT, findings};
pub use table::table;

use serde_json::{Map, Value, json};
use tastemaker_eval::compare::{Comparison, Extras, Results};
use tastemaker_math::intervals::mean;

use crate::art::Split;
pub use crate::evaluation::Fractions;
pub use crate::scorers::{CheckRow, ScorerCheck, ScorerCheckRow};
use crate::task::TaskName;

/// What the report has beyond the comparison.
#[derive(Clone, Debug)]
pub struct Details {
    /// The task.
    pub task: TaskName,
    /// Seed of the whole run.
    pub seed: u64,
    /// How the base's images are read, held out and seen.
    pub base: [Fractions; 2],
    /// The methods, the control among them, in the order to be shown.
    pub methods: Vec<Method>,
    /// How the judge reads real art that was disturbed.
    pub judge_check: Vec<CheckRow>,
    /// What the learned preference scorer learned from and how it ranks held-out art, if there is one.
    pub scorer_check: Option<ScorerCheck>,
}

/// One method.
#[derive(Clone, Debug)]
pub struct Method {
    /// Its name, also that of its model in the comparison.
    pub name: String,
    /// Whether this is the control that only imitates winners.
    pub is_control: bool,
    /// How it was trained.
    pub training: Training,
    /// How its images are read, held out and seen; `None` when training failed before anything could be generated.
    pub fractions: Option<[Fractions; 2]>,
    /// Why training or evaluation ended early, if it did.
    pub failure: Option<String>,
}

/// What training took, and how it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Optimizer steps taken.
    pub steps: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Highest memory use, where it was measured.
    pub peak_memory_bytes: Option<u64>,
    /// The course of training, in order of steps.
    pub curve: Vec<CurvePoint>,
}

/// Training metrics at one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CurvePoint {
    /// Optimizer step.
    pub step: u64,
    /// Loss of the method, in its own unit.
    pub loss: f64,
    /// Fraction of pairs whose winner the model already prefers more than the reference does.
    pub implicit_accuracy: Option<f64>,
    /// Squared error on winners over that of the reference.
    pub winner_error_ratio: Option<f64>,
    /// Squared error on losers over that of the reference.
    pub loser_error_ratio: Option<f64>,
}

impl Training {
    /// Winner and loser error over the reference's at the end of training: means over the last tenth of the recorded
    /// steps, because a single batch says little.
    pub fn final_error_ratios(&self) -> (Option<f64>, Option<f64>) {
        let last = |metric: fn(&CurvePoint) -> Option<f64>| {
            let recorded: Vec<f64> = self.curve.iter().filter_map(metric).collect();
            mean(&recorded[recorded.len() - recorded.len().div_ceil(10)..])
        };
        (last(|point| point.winner_error_ratio), last(|point| point.loser_error_ratio))
    }
}

/// What to add to the comparison's page and summary.
pub fn extras(comparison: &Comparison, results: &Results, details: &Details) -> Extras {
    let findings = findings(comparison, results, details);
    Extras {
        heading: Some("Aligning a small Stable Diffusion with preferences".to_owned()),
        lede: format!("The pairs prefer {}.", details.task.goal()),
        cards: sections::cards(comparison, details),
        reading: sections::reading(details),
        before: sections::alarms(&findings).into_iter().collect(),
        after: sections::after(comparison, details),
        summary: summary(details, &findings),
        ..Extras::none("demo")
    }
}

/// The position of a method's model in the comparison.
fn position(comparison: &Comparison, method: &Method) -> Option<usize> {
    comparison.models.iter().position(|model| model.name == method.name)
}

/// The fields of the summary. Values that are missing (a method that failed, memory that could not be measured) are `null`,
/// never skipped.
fn summary(details: &Details, findings: &[Finding]) -> Map<String, Value> {
    let methods = details.methods.iter().map(|method| (method.name.as_str(), method.fractions.as_ref()));
    let models = std::iter::once(("base", Some(&details.base))).chain(methods);
    let fractions = models.flat_map(|(model, fractions)| {
        Split::BOTH.into_iter().enumerate().map(move |(at, side)| {
            let (of, base) = (fractions.map(|both| both[at]), details.base[at]);
            let mut row = json!({
                "model": model,
                "category": side.label(),
                "n": of.map(|of| of.n),
                "caption_accuracy": of.map(|of| of.caption_accuracy),
                "caption_accuracy_delta": of.map(|of| of.caption_accuracy - base.caption_accuracy),
            });
            if let Some((field, _)) = details.task.target() {
                let target = of.and_then(|of| of.target);
                row[field] = json!(target);
                row[format!("{field}_delta")] = json!(target.zip(base.target).map(|(now, base)| now - base));
            }
            row
        })
    });
    let training = details.methods.iter().map(|Method { name, is_control, training, failure, .. }| {
        let (winner, loser) = training.final_error_ratios();
        json!({
            "model": name,
            "is_control": is_control,
            "failure": failure,
            "winner_error_ratio": winner,
            "loser_error_ratio": loser,
            "steps": training.steps,
            "train_seconds": training.seconds,
            "peak_memory_bytes": training.peak_memory_bytes,
        })
    });
    let fields = json!({
        "task": details.task.name(),
        "seed": details.seed,
        "fractions": fractions.collect::<Vec<_>>(),
        "training": training.collect::<Vec<_>>(),
        "judge_check": details.judge_check,
        "scorer_check": details.scorer_check,
        "findings": findings,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
