//! Votes that were exported, taken into another database of the same study.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use tastemaker_store::json;

use crate::WebError;
use crate::study::{Study, StudySettings};
use crate::vote::{Answer, Ballot, Database, Task};

#[derive(Deserialize)]
struct Row {
    voter: String,
    prompt: String,
    model_a: String,
    model_b: String,
    seed: u64,
    question: String,
    round: u32,
    answer: String,
    a_is_left: bool,
    position: u32,
    seconds: f64,
    at: u64,
}

/// Adds the votes of a file that [`export`](super::export) wrote to a database without votes; how many there were.
///
/// # Errors
/// [`WebError::Study`] if the database has votes already, for a line that is no vote, and for a vote on another study.
pub fn import(
    path: &Path,
    database: &mut Database,
    study: &Study,
    settings: &StudySettings,
) -> Result<usize, WebError> {
    let keys: Vec<String> = settings.questions.iter().map(|question| question.key.clone()).collect();
    let refuse = |what: String| WebError::Study(what);
    let n = database.rows(&keys)?.len();
    if n > 0 {
        return Err(refuse(format!(
            "the database has {n} votes already; wanted a new one to import into, or the command without --import to go on with these"
        )));
    }
    let items: HashMap<(&str, &str, &str, u64), u32> = study
        .items
        .iter()
        .zip(0..)
        .map(|(item, number)| {
            let [a, b] = item.models.map(|model| study.models[model as usize].as_str());
            ((study.prompts[item.prompt as usize].text.as_str(), a, b, item.seed), number)
        })
        .collect();
    let mut rows = Vec::new();
    for (line, number) in json::read_text(path)?.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty())
    {
        let wrong = |what: String| refuse(format!("line {number} of {}: {what}", path.display()));
        let row: Row = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        let item = items.get(&(row.prompt.as_str(), row.model_a.as_str(), row.model_b.as_str(), row.seed));
        let item = *item.ok_or_else(|| wrong("a vote on a pair that this study does not have".into()))?;
        let question = keys.iter().position(|key| *key == row.question);
        let question =
            question.ok_or_else(|| wrong(format!("the question `{}` is not asked here", row.question)))?;
        let answer =
            Answer::of_name(&row.answer).ok_or_else(|| wrong(format!("no answer `{}`", row.answer)))?;
        rows.push((Task { item, question: question as u32, round: row.round }, answer, row));
    }
    let mut names: Vec<String> = Vec::new();
    for (.., row) in &rows {
        if !names.contains(&row.voter) {
            names.push(row.voter.clone());
        }
    }
    let known = database.voters(&names)?;
    let voter = |name: &str| known.iter().position(|voter| voter.name == name).unwrap_or(0) as u32;
    let ballots: Vec<Ballot> = rows
        .into_iter()
        .map(|(task, answer, row)| Ballot {
            voter: voter(&row.voter),
            task,
            answer: Some(answer),
            a_is_left: row.a_is_left,
            position: row.position,
            seconds: row.seconds,
            at: row.at,
        })
        .collect();
    database.add(&ballots, &keys)?;
    Ok(ballots.len())
}
