//! The figures of a report as JSON, for programs. Every field is described in `docs/reference/summary.md`.

use super::findings::{Verdict, findings};
use super::model::{Method, Report, Shares};
use crate::EvalError;
use crate::winrate::{Group, Split, WinRate};
use serde_json::{Map, Value, json};

/// Version of the summary's layout.
pub const SUMMARY_FORMAT: u64 = 2;

/// The summary of a report, as indented JSON with a line break at the end.
///
/// Figures without a value (a method that failed, memory that could not be measured) are `null`, never skipped.
///
/// # Errors
/// A report whose parts do not belong together.
pub fn summary(report: &Report) -> Result<String, EvalError> {
    report.validate()?;
    let methods: Map<String, Value> = report
        .methods
        .iter()
        .map(|method| (method.name.clone(), Value::Object(of_method(report, method))))
        .collect();
    let mut base = Map::new();
    push_shares(&mut base, report, Some(&report.base));
    let settings: Map<String, Value> =
        report.settings.iter().map(|fact| (fact.name.clone(), json!(fact.value))).collect();
    let summary = json!({
        "format": SUMMARY_FORMAT,
        "task": report.task,
        "seed": report.seed,
        "settings": settings,
        "base": base,
        "methods": methods,
        "judge_check": report.judge_check,
        "scorer_check": report.scorer_check,
        "findings": findings(report),
    });
    Ok(serde_json::to_string_pretty(&summary)? + "\n")
}

fn of_method(report: &Report, method: &Method) -> Map<String, Value> {
    let outcome = method.outcome.as_ref();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("label", json!(method.label));
    put("is_control", json!(method.is_control));
    put("failure", json!(method.failure));
    put("verdict_held_out", json!(outcome.map(|outcome| Verdict::of(&outcome.versus_base.held_out).word())));
    push_win_rates(&mut fields, outcome.map(|outcome| &outcome.versus_base));
    let by_scorer = outcome.and_then(|outcome| outcome.versus_base_by_scorer.as_ref());
    push_win_rate(&mut fields, "_by_scorer_held_out", by_scorer);
    push_shares(&mut fields, report, outcome.map(|outcome| &outcome.shares));
    push_share_changes(&mut fields, report, outcome.map(|outcome| &outcome.shares));
    let (winner, loser) = method.final_error_ratios();
    let training = [
        ("winner_error_ratio", json!(winner)),
        ("loser_error_ratio", json!(loser)),
        ("steps", json!(method.training.steps)),
        ("train_seconds", json!(method.training.seconds)),
        ("peak_memory_bytes", json!(method.training.peak_memory_bytes)),
    ];
    fields.extend(training.map(|(name, value)| (name.to_owned(), value)));
    fields.insert("versus".to_owned(), Value::Object(versus(report, method)));
    fields
}

fn versus(report: &Report, method: &Method) -> Map<String, Value> {
    let others = report.methods.iter().filter(|other| other.name != method.name);
    others
        .map(|other| {
            let mut fields = Map::new();
            let outcome = method.outcome.as_ref();
            push_win_rates(&mut fields, outcome.and_then(|outcome| outcome.versus_methods.get(&other.name)));
            (other.name.clone(), Value::Object(fields))
        })
        .collect()
}

fn push_win_rates(fields: &mut Map<String, Value>, rates: Option<&Split<WinRate>>) {
    for (group, suffix) in [(Group::HeldOut, "_held_out"), (Group::Seen, "_seen")] {
        push_win_rate(fields, suffix, rates.map(|rates| rates.of(group)));
    }
}

fn push_win_rate(fields: &mut Map<String, Value>, suffix: &str, rate: Option<&WinRate>) {
    let figure = |read: fn(&WinRate) -> Value| rate.map(read);
    let figures = [
        ("win_rate", figure(|rate| json!(rate.rate))),
        ("wilson_low", figure(|rate| json!(rate.low))),
        ("wilson_high", figure(|rate| json!(rate.high))),
        ("wins", figure(|rate| json!(rate.wins))),
        ("ties", figure(|rate| json!(rate.ties))),
        ("losses", figure(|rate| json!(rate.losses))),
        ("mean_difference", figure(|rate| json!(rate.mean_difference.value))),
        ("mean_difference_low", figure(|rate| json!(rate.mean_difference.low))),
        ("mean_difference_high", figure(|rate| json!(rate.mean_difference.high))),
        ("median_difference", figure(|rate| json!(rate.median_difference.value))),
        ("median_difference_low", figure(|rate| json!(rate.median_difference.low))),
        ("median_difference_high", figure(|rate| json!(rate.median_difference.high))),
    ];
    fields.extend(figures.map(|(name, value)| (format!("{name}{suffix}"), json!(value))));
}

/// The groups with the suffix of their fields: figures without a suffix are about held-out captions.
const GROUPS: [(Group, &str); 2] = [(Group::HeldOut, ""), (Group::Seen, "_seen")];

fn push_shares(fields: &mut Map<String, Value>, report: &Report, shares: Option<&Split<Shares>>) {
    for (group, suffix) in GROUPS {
        let shares = shares.map(|shares| shares.of(group));
        fields.insert(format!("n_images{suffix}"), json!(shares.map(|shares| shares.n)));
        fields
            .insert(format!("caption_accuracy{suffix}"), json!(shares.map(|shares| shares.caption_accuracy)));
        if let Some(target) = &report.target {
            let share = shares.and_then(|shares| shares.target_share);
            fields.insert(format!("{}{suffix}", target.field), json!(share));
        }
    }
}

fn push_share_changes(fields: &mut Map<String, Value>, report: &Report, shares: Option<&Split<Shares>>) {
    for (group, suffix) in GROUPS {
        let base = report.base.of(group);
        let shares = shares.map(|shares| shares.of(group));
        let change = shares.map(|shares| shares.caption_accuracy - base.caption_accuracy);
        fields.insert(format!("caption_accuracy_delta{suffix}"), json!(change));
        if let Some(target) = &report.target {
            let change = shares.and_then(|shares| Some(shares.target_share? - base.target_share?));
            fields.insert(format!("{}_delta{suffix}", target.field), json!(change));
        }
    }
}
