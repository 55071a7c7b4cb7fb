//! The figures of a comparison as JSON, for programs. Every field is described in `docs/reference/summary.md`.

use serde_json::{Map, Value, json};

use super::figures::{Duel, Figures, Standing};
use super::headline::headline;
use super::model::Comparison;
use super::tables::n_prompts;
use crate::EvalError;
use crate::report::{Fact, Verdict};

/// Version of the summary's layout.
pub const SUMMARY_FORMAT: u64 = 2;

/// The summary of a comparison, as indented JSON with a line break at the end. Rows are flat, so that each list is a table.
///
/// # Errors
/// [`EvalError::Json`].
pub fn summary(comparison: &Comparison, figures: &Figures) -> Result<String, EvalError> {
    let category = |index: Option<usize>| index.map(|index| figures.categories[index].0.as_str());
    let model = |index: usize| comparison.models[index].name.as_str();
    let scorer = |index: usize| comparison.scorers[index].name.as_str();
    let standing = |standing: &Standing| {
        let Standing { n, mean, median, .. } = standing;
        json!({
            "model": model(standing.model),
            "scorer": scorer(standing.scorer),
            "category": category(standing.category),
            "n": n,
            "mean": mean.value,
            "mean_low": mean.low,
            "mean_high": mean.high,
            "median": median,
        })
    };
    let duel = |duel: &Duel| {
        let rate = &duel.rate;
        json!({
            "a": model(duel.a),
            "b": model(duel.b),
            "scorer": scorer(duel.scorer),
            "category": category(duel.category),
            "n": rate.n,
            "wins": rate.wins,
            "ties": rate.ties,
            "losses": rate.losses,
            "win_rate": rate.rate,
            "wilson_low": rate.low,
            "wilson_high": rate.high,
            "verdict": Verdict::of(rate).word(),
            "mean_difference": rate.mean_difference.value,
            "mean_difference_low": rate.mean_difference.low,
            "mean_difference_high": rate.mean_difference.high,
            "median_difference": rate.median_difference.value,
            "median_difference_low": rate.median_difference.low,
            "median_difference_high": rate.median_difference.high,
        })
    };
    let agreement: Vec<Value> = figures
        .agreements
        .iter()
        .flat_map(|agreement| {
            let pairs = (0..comparison.scorers.len())
                .flat_map(|one| (one + 1..comparison.scorers.len()).map(move |b| (one, b)));
            pairs.map(|(one, other)| {
                json!({
                    "a": model(agreement.a),
                    "b": model(agreement.b),
                    "scorers": [scorer(one), scorer(other)],
                    "fraction": agreement.fractions[one][other],
                })
            })
        })
        .collect();
    let models: Vec<Value> = comparison
        .models
        .iter()
        .map(|one| json!({ "name": one.name, "what": one.what, "settings": facts(&one.settings) }))
        .collect();
    let scorers: Vec<Value> =
        comparison.scorers.iter().map(|scorer| json!({ "name": scorer.name, "unit": scorer.unit })).collect();
    let summary = json!({
        "format": SUMMARY_FORMAT,
        "kind": "compare",
        "headline": headline(comparison, figures),
        "prompts": comparison.prompts_name,
        "n_prompts": n_prompts(comparison),
        "n_samples": comparison.samples.len(),
        "settings": facts(&comparison.settings),
        "models": models,
        "scorers": scorers,
        "scores": figures.standings.iter().map(standing).collect::<Vec<_>>(),
        "duels": figures.duels.iter().map(duel).collect::<Vec<_>>(),
        "agreement": agreement,
    });
    Ok(serde_json::to_string_pretty(&summary)? + "\n")
}

fn facts(facts: &[Fact]) -> Map<String, Value> {
    facts.iter().map(|fact| (fact.name.clone(), json!(fact.value))).collect()
}
