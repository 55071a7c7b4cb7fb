//! The results as JSON, for programs. Every field is described in `docs/reference/summary.md`.

use serde_json::{Map, Value, json};
use tastemaker_math::intervals::Interval;
use tastemaker_pages::Fact;

use super::headline::headline;
use super::model::{Comparison, Extras};
use super::results::{Agreement, ModelScore, PairwiseWinRate, Results};
use crate::EvalError;

/// Version of the summary's layout.
pub const SUMMARY_FORMAT: u64 = 3;

/// The summary of a comparison, as indented JSON with a line break at the end. Rows are flat, so that each list is a table.
///
/// # Errors
/// [`EvalError::Json`].
pub fn summary(comparison: &Comparison, results: &Results, extras: &Extras) -> Result<String, EvalError> {
    let category = |index: Option<usize>| index.map(|index| results.categories[index].0.as_str());
    let model = |index: usize| comparison.models[index].name.as_str();
    let scorer = |index: usize| comparison.scorers[index].name.as_str();
    let score = |score: &ModelScore| {
        let mut row = json!({
            "model": model(score.model),
            "scorer": scorer(score.scorer),
            "category": category(score.category),
            "n": score.n,
        });
        put(&mut row, ["mean", "mean_low", "mean_high"], &score.mean);
        row["median"] = json!(score.median);
        row
    };
    let win_rate = |PairwiseWinRate { scorer: by, a, b, category: of, rate }: &PairwiseWinRate| {
        let mut row = json!({
            "a": model(*a),
            "b": model(*b),
            "scorer": scorer(*by),
            "category": category(*of),
            "n": rate.n,
            "wins": rate.wins,
            "ties": rate.ties,
            "losses": rate.losses,
        });
        put(&mut row, ["win_rate", "wilson_low", "wilson_high"], &rate.rate);
        row["verdict"] = json!(rate.verdict().word());
        let mean = ["mean_difference", "mean_difference_low", "mean_difference_high"];
        put(&mut row, mean, &rate.mean_difference);
        let median = ["median_difference", "median_difference_low", "median_difference_high"];
        put(&mut row, median, &rate.median_difference);
        row
    };
    let n_scorers = comparison.scorers.len();
    let pairs: Vec<(usize, usize)> =
        (0..n_scorers).flat_map(|one| (one + 1..n_scorers).map(move |other| (one, other))).collect();
    let agreement = |agreement: &Agreement| {
        let row = |&(one, other): &(usize, usize)| {
            json!({
                "a": model(agreement.a),
                "b": model(agreement.b),
                "scorers": [scorer(one), scorer(other)],
                "fraction": agreement.fractions[one][other],
            })
        };
        pairs.iter().map(row).collect::<Vec<_>>()
    };
    let models = comparison.models.iter();
    let models =
        models.map(|one| json!({"name": one.name, "what": one.what, "settings": facts(&one.settings)}));
    let scorers = comparison.scorers.iter().map(|scorer| json!({"name": scorer.name, "unit": scorer.unit}));
    let mut summary = json!({
        "format": SUMMARY_FORMAT,
        "kind": extras.command,
        "headline": headline(comparison, results),
        "prompts": comparison.prompts_name,
        "n_prompts": comparison.n_prompts(),
        "n_images": comparison.samples.len(),
        "settings": facts(&comparison.settings),
        "models": models.collect::<Vec<_>>(),
        "scorers": scorers.collect::<Vec<_>>(),
        "scores": results.scores.iter().map(score).collect::<Vec<_>>(),
        "win_rates": results.win_rates.iter().map(win_rate).collect::<Vec<_>>(),
        "agreement": results.agreements.iter().flat_map(agreement).collect::<Vec<_>>(),
    });
    for (name, value) in &extras.summary {
        summary[name] = value.clone();
    }
    Ok(serde_json::to_string_pretty(&summary)? + "\n")
}

fn put(row: &mut Value, names: [&str; 3], interval: &Interval) {
    for (name, value) in names.into_iter().zip([interval.estimate, interval.low, interval.high]) {
        row[name] = json!(value);
    }
}

fn facts(facts: &[Fact]) -> Map<String, Value> {
    facts.iter().map(|fact| (fact.name.clone(), json!(fact.value))).collect()
}
