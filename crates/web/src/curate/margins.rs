//! How much better scorers find a pair's winner than its loser.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairSource, Side};
use tastemaker_store::json;

use crate::WebError;

/// The longest file of scores that is read.
const MAX_BYTES: u64 = 1 << 30;

/// The margins of a scorer: the winner's score less the loser's for each pair of a set, in the scorer's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Margins {
    /// Name of the scorer.
    pub scorer: String,
    /// By position; `None` where an image has no score.
    pub values: Vec<Option<f64>>,
}

/// Reads what `tastemaker score` says of the images of a set, in JSON lines: margins by scorer.
///
/// # Errors
/// [`WebError::Study`] for another file, and for one without the images of a pair; [`WebError::Store`].
pub fn read_margins(path: &Path, set: &PairSet) -> Result<Vec<Margins>, WebError> {
    let refuse = |what: String| WebError::Study(format!("{}: {what}", path.display()));
    let mut scores: BTreeMap<String, HashMap<PathBuf, f64>> = BTreeMap::new();
    for (line, number) in json::read_text_within(path, MAX_BYTES)?.lines().zip(1..) {
        let row: Map<String, Value> = serde_json::from_str(line).map_err(|_| {
            refuse(format!("line {number} is no score; wanted the JSON lines of tastemaker score --out"))
        })?;
        let image = row.get("image").and_then(Value::as_str);
        let image = image.ok_or_else(|| refuse(format!("line {number} names no image")))?;
        let Ok(image) = Path::new(image).canonicalize() else { continue };
        for (scorer, score) in &row {
            if let Some(score) = score.as_f64() {
                scores.entry(scorer.clone()).or_default().insert(image.clone(), score);
            }
        }
    }
    let place = |position: usize, side| set.file(position, side).canonicalize().ok();
    let places: Vec<[Option<PathBuf>; 2]> =
        (0..set.len()).map(|position| Side::BOTH.map(|side| place(position, side))).collect();
    let margins: Vec<Margins> = scores
        .into_iter()
        .map(|(scorer, scores)| {
            let of = |[winner, loser]: &[Option<PathBuf>; 2]| {
                Some(scores.get(winner.as_ref()?)? - scores.get(loser.as_ref()?)?)
            };
            Margins { scorer, values: places.iter().map(of).collect() }
        })
        .filter(|margins| margins.values.iter().any(Option::is_some))
        .collect();
    if margins.is_empty() {
        let what = format!(
            "it has both scores of no pair of {}; wanted those of its images, from the same folder",
            set.path().display()
        );
        return Err(refuse(what));
    }
    Ok(margins)
}
