//! How far scorers decide as people do.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use tastemaker_math::agreement::Decision;
use tastemaker_math::intervals::WinCount;
use tastemaker_store::json;

use super::{Counted, ScorerAgreement};
use crate::WebError;
use crate::study::StudyPrompt;
use crate::vote::Record;

/// What a scorer says of images: by model, prompt and seed.
#[derive(Debug, Clone)]
pub struct ScorerScores {
    /// Its name.
    pub name: String,
    /// Its scores; higher is better.
    pub scores: HashMap<(u32, u32, u64), f64>,
}

#[derive(Deserialize)]
struct Row {
    model: String,
    scorer: String,
    number: usize,
    seed: u64,
    score: f64,
}

/// Reads `scores.jsonl` of a comparison, whose numbers count through `prompts`. Scores of other models and prompts are passed over.
///
/// # Errors
/// [`WebError::Study`] for a line that is no score; [`WebError::Store`].
pub fn read_scores(
    path: &Path,
    prompts: &[StudyPrompt],
    record: &Record,
) -> Result<Vec<ScorerScores>, WebError> {
    let models: HashMap<&str, u32> = record.models.iter().map(String::as_str).zip(0..).collect();
    let texts: HashMap<&str, u32> =
        record.prompts.iter().map(|prompt| prompt.text.as_str()).zip(0..).collect();
    let mut by_name: BTreeMap<String, HashMap<(u32, u32, u64), f64>> = BTreeMap::new();
    for (line, number) in json::read_text(path)?.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty())
    {
        let row: Row = serde_json::from_str(line).map_err(|error| {
            WebError::Study(format!("line {number} of {} is no score: {error}", path.display()))
        })?;
        let prompt = prompts.get(row.number).and_then(|prompt| texts.get(prompt.text.as_str()));
        if let (Some(model), Some(prompt)) = (models.get(row.model.as_str()), prompt) {
            by_name.entry(row.scorer).or_default().insert((*model, *prompt, row.seed), row.score);
        }
    }
    Ok(by_name.into_iter().map(|(name, scores)| ScorerScores { name, scores }).collect())
}

/// On how many pairs that people decide a scorer prefers the same image; `None` where it scores none of them.
pub(super) fn agreement(
    record: &Record,
    counted: &Counted,
    question: u32,
    scorer: &ScorerScores,
) -> Option<ScorerAgreement> {
    let (mut n, mut agree, mut ties) = (0, 0, 0);
    for (number, item) in record.items.iter().enumerate() {
        let votes = counted.get(&(number as u32, question)).map(|(votes, _)| votes.decision());
        let wanted = match votes.flatten() {
            Some(Decision::First) => true,
            Some(Decision::Second) => false,
            Some(Decision::Tie) | None => continue,
        };
        let [Some(a), Some(b)] = item.models.map(|model| scorer.scores.get(&(model, item.prompt, item.seed)))
        else {
            continue;
        };
        n += 1;
        ties += u64::from(a == b);
        agree += u64::from(a != b && (a > b) == wanted);
    }
    let fraction = WinCount { wins: agree, ties, losses: n - agree - ties }.wilson_95()?;
    Some(ScorerAgreement { scorer: scorer.name.clone(), n, agree, fraction: fraction.into() })
}
