//! Comparing models, or images of any origin, on equal prompts: results, one self-contained page, the same results as JSON.

mod folder;
mod headline;
mod images;
mod ledger;
mod model;
mod page;
mod plan;
mod results;
mod summary;
mod tables;

pub use folder::{Matched, match_images};
pub use headline::headline;
pub use images::choose;
pub use ledger::{Ledger, Score};
pub use model::{Choice, ComparedModel, Comparison, Extras, Sample, ScorerInfo, ShownSample};
pub use page::page;
pub use plan::{PLAN_FORMAT, Plan, PlannedModel, PlannedPrompts};
pub use results::{Agreement, ModelScore, PairwiseWinRate, Results};
pub use summary::{SUMMARY_FORMAT, summary};

use crate::EvalError;
use std::path::{Path, PathBuf};
use tastemaker_store::atomic;

/// Writes `report.html` and `summary.json` into a folder, which is created if need be. Returns the path of the page.
///
/// # Errors
/// A folder that cannot be written to.
pub fn write(
    comparison: &Comparison,
    results: &Results,
    extras: &Extras,
    folder: impl AsRef<Path>,
) -> Result<PathBuf, EvalError> {
    let folder = folder.as_ref();
    atomic::create_folder(folder)?;
    atomic::write_bytes(folder.join("summary.json"), summary(comparison, results, extras)?.as_bytes())?;
    let path = folder.join("report.html");
    atomic::write_bytes(&path, page(comparison, results, extras).as_bytes())?;
    Ok(path)
}
