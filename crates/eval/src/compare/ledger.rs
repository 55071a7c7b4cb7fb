//! `scores.jsonl`: every score that was given, so that none is asked for twice.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tastemaker_store::{StoreError, atomic, json};

use crate::EvalError;

/// One score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the model.
    #[serde(alias = "contestant")]
    pub model: String,
    /// Name of the scorer.
    pub scorer: String,
    /// Number of the prompt in its set.
    pub number: usize,
    /// Seed of the image.
    pub seed: u64,
    /// The score, in the scorer's unit.
    pub score: f64,
}

/// The scores of a folder, in a file that only grows.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    scores: HashMap<(String, String), HashMap<(usize, u64), f64>>,
}

impl Ledger {
    /// Reads the scores that are there. A last line that a killed process did not finish is dropped from the file.
    ///
    /// # Errors
    /// [`EvalError::Store`] if the file cannot be read or written; [`EvalError::Compared`] for any other line that is no score.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EvalError> {
        let path = path.as_ref().to_owned();
        let text = if path.exists() { json::read_text(&path)? } else { String::new() };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            atomic::write_bytes(&path, &text.as_bytes()[..whole])?;
        }
        let mut scores: HashMap<(String, String), HashMap<(usize, u64), f64>> = HashMap::new();
        for (index, line) in text[..whole].lines().enumerate() {
            let Score { model, scorer, number, seed, score } =
                serde_json::from_str(line).map_err(|error| EvalError::Compared {
                    path: path.clone(),
                    what: format!("line {} is no score ({error}); remove it", index + 1),
                })?;
            scores.entry((model, scorer)).or_default().insert((number, seed), score);
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| StoreError::Io { action: "write", path: path.clone(), source })?;
        Ok(Self { path, file, scores })
    }

    /// A score that is there.
    pub fn get(&self, model: &str, scorer: &str, number: usize, seed: u64) -> Option<f64> {
        let key = (model.to_owned(), scorer.to_owned());
        self.scores.get(&key)?.get(&(number, seed)).copied()
    }

    /// Adds scores, and keeps them on disk before it returns.
    ///
    /// # Errors
    /// [`EvalError::ScoreNotFinite`] for what is no number; [`EvalError::Store`] if they cannot be written.
    pub fn add(&mut self, scores: Vec<Score>) -> Result<(), EvalError> {
        let mut lines = String::new();
        for score in &scores {
            if !score.score.is_finite() {
                return Err(EvalError::Scorer {
                    scorer: score.scorer.clone(),
                    what: format!(
                        "its score of {:?} for prompt {}, seed {} is {}",
                        score.model, score.number, score.seed, score.score
                    ),
                });
            }
            lines += &serde_json::to_string(score)?;
            lines.push('\n');
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| StoreError::Io { action: "write", path: self.path.clone(), source })?;
        for Score { model, scorer, number, seed, score } in scores {
            self.scores.entry((model, scorer)).or_default().insert((number, seed), score);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(number: usize, score: f64) -> Score {
        Score { model: "a".into(), scorer: "s".into(), number, seed: 3, score }
    }

    #[test]
    fn scores_are_there_again_after_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.add(vec![score(0, 0.1), score(1, -7.25)]).unwrap();
        drop(ledger);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"model\":\"a\",\"sco")).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!((ledger.get("a", "s", 1, 3), ledger.get("a", "s", 2, 3)), (Some(-7.25), None));
        ledger.add(vec![score(2, 4.0)]).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().get("a", "s", 2, 3), Some(4.0));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(&whole));
    }

    #[test]
    fn a_line_that_is_no_score_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let error = Ledger::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1 is no score (missing field `model`"), "{error}");
    }

    #[test]
    fn what_is_no_number_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path().join("scores.jsonl")).unwrap();
        let error = ledger.add(vec![score(5, f64::NAN)]).unwrap_err().to_string();
        assert_eq!(error, "scorer `s` cannot judge: its score of \"a\" for prompt 5, seed 3 is NaN");
        assert_eq!(ledger.get("a", "s", 5, 3), None);
    }
}
