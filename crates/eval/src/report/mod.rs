//! The report: one self-contained page with images, and the same figures as JSON.

pub(crate) mod charts;
mod findings;
mod images;
mod model;
mod page;
mod summary;
mod tables;
pub(crate) mod text;

pub use findings::{CAPTION_ACCURACY_TOLERANCE, Verdict, WINNER_DRIFT_LIMIT, findings};
pub use model::{
    Alarm, CurvePoint, Fact, Image, ImageColumn, ImageGrid, ImageRow, Method, Outcome, Report, Severity,
    Shares, TargetShare, Training,
};
pub(crate) use page::fact_list;
pub use page::page;
pub use summary::{SUMMARY_FORMAT, summary};

use crate::EvalError;
use std::path::{Path, PathBuf};

/// Writes `report.html` and `summary.json` into a folder, which is created if need be. Returns the path of the page.
///
/// # Errors
/// A report whose parts do not belong together, or a folder that cannot be written to.
pub fn write(report: &Report, folder: impl AsRef<Path>) -> Result<PathBuf, EvalError> {
    put(&page(report)?, &summary(report)?, folder.as_ref())
}

/// Puts a page and its summary into a folder.
pub(crate) fn put(page: &str, summary: &str, folder: &Path) -> Result<PathBuf, EvalError> {
    tastemaker_store::atomic::create_folder(folder)?;
    tastemaker_store::atomic::write_bytes(folder.join("summary.json"), summary.as_bytes())?;
    let path = folder.join("report.html");
    tastemaker_store::atomic::write_bytes(&path, page.as_bytes())?;
    Ok(path)
}
