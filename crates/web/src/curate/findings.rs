//! What a check of a set found, by row.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tastemaker_data::PairId;
use tastemaker_data::set::PairSet;
use tastemaker_store::checksum::hex;
use tastemaker_store::json;

use crate::WebError;

/// The longest `check.jsonl` that is read.
const MAX_BYTES: u64 = 1 << 30;

/// One thing that was found about a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check.
    pub check: String,
    /// The image that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<String>,
    /// What it found.
    pub detail: String,
}

/// What was found, by row.
pub type Findings = BTreeMap<PairId, Vec<Finding>>;

#[derive(Deserialize)]
struct Header {
    fingerprint: String,
}

#[derive(Deserialize)]
struct Line {
    row: Option<PairId>,
    #[serde(flatten)]
    finding: Finding,
}

/// Reads `check.jsonl`, or the folder it is in, of a set.
///
/// # Errors
/// [`WebError::Study`] if it is of another set, or something else; [`WebError::Store`].
pub fn read_findings(path: &Path, set: &PairSet) -> Result<Findings, WebError> {
    let file = if path.is_dir() { path.join("check.jsonl") } else { path.to_owned() };
    let text = json::read_text_within(&file, MAX_BYTES)?;
    let refuse = |what: String| WebError::Study(format!("{}: {what}", file.display()));
    let mut lines = text.lines().zip(1..);
    let header = lines.next().and_then(|(line, _)| serde_json::from_str::<Header>(line).ok());
    let header = header.ok_or_else(|| refuse("wanted what tastemaker data check writes".into()))?;
    if header.fingerprint != hex(&set.opened_fingerprint()) {
        return Err(refuse(
            "it is of another set, or of this one before it changed; run data check again".into(),
        ));
    }
    let mut findings = Findings::new();
    for (line, number) in lines {
        let line: Line = serde_json::from_str(line)
            .map_err(|error| refuse(format!("line {number} is no finding: {error}")))?;
        if let Some(row) = line.row {
            findings.entry(row).or_default().push(line.finding);
        }
    }
    Ok(findings)
}
