//! Comparing models, or images of any origin, on equal prompts: figures, one self-contained page, the figures as JSON.

mod charts;
mod exhibits;
mod figures;
mod folder;
mod headline;
mod images;
mod ledger;
mod model;
mod page;
mod plan;
mod summary;
mod tables;

pub use exhibits::{Choice, Exhibit, Thumb, choose};
pub use figures::{Agreement, Duel, Figures, Standing};
pub use folder::{Matched, match_images};
pub use headline::headline;
pub use ledger::{Ledger, Score};
pub use model::{ComparedModel, Comparison, Sample, ScorerFacts};
pub use page::page;
pub use plan::{PLAN_FORMAT, Plan, PlannedModel, PlannedPrompts};
pub use summary::{SUMMARY_FORMAT, summary};

use crate::EvalError;
use crate::report::put;
use std::path::{Path, PathBuf};

/// Writes `report.html` and `summary.json` into a folder, which is created if need be. Returns the path of the page.
///
/// # Errors
/// Scores that do not fit the models and samples, or a folder that cannot be written to.
pub fn write(
    comparison: &Comparison,
    figures: &Figures,
    folder: impl AsRef<Path>,
) -> Result<PathBuf, EvalError> {
    put(&page(comparison, figures), &summary(comparison, figures)?, folder.as_ref())
}
