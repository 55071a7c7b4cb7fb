//! The results that matter most, for the terminal.

use std::fmt::Write;

use tastemaker_eval::compare::{Comparison, Results};
use tastemaker_pages::format::tenths;

use super::{Details, Fractions, Method, findings, position};

/// Win rates, accuracies and costs of every method, and what went wrong.
pub fn table(comparison: &Comparison, results: &Results, details: &Details) -> String {
    let heads = ["held out", "95% interval", "seen", "captions", "target", "steps", "seconds", "memory"];
    let base = accuracy(&details.base[0]);
    let rows = [
        row("", &heads.map(str::to_owned)),
        row("base", &[String::new(), String::new(), String::new(), base[0].clone(), base[1].clone()]),
    ];
    let methods = details.methods.iter().map(|method| of_method(comparison, results, method));
    let mut text: String = rows.into_iter().chain(methods).collect();
    for finding in findings(comparison, results, details) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n! {}: {}", finding.model, finding.what);
    }
    text
}

fn of_method(comparison: &Comparison, results: &Results, method: &Method) -> String {
    let seen = results.categories.iter().position(|(name, _)| name == "seen");
    let model = position(comparison, method);
    let rates =
        model.and_then(|model| Some((results.overall(0, model, 0)?, results.win_rate(0, model, 0, seen)?)));
    let (Some((held_out, seen)), Some(fractions)) = (rates, &method.fractions) else {
        return format!("{:<16} failed: {}\n", method.name, method.failure.as_deref().unwrap_or("unknown"));
    };
    let [captions, target] = accuracy(&fractions[0]);
    let interval = format!("{:.1}-{:.1}%", 100.0 * held_out.rate.low, 100.0 * held_out.rate.high);
    let training = &method.training;
    row(
        &method.name,
        &[
            tenths(held_out.rate.estimate),
            interval,
            tenths(seen.rate.estimate),
            captions,
            target,
            training.steps.to_string(),
            format!("{:.1}", training.seconds),
            training.peak_memory_bytes.map_or("-".to_owned(), |bytes| format!("{} MB", bytes >> 20)),
        ],
    )
}

fn accuracy(of: &Fractions) -> [String; 2] {
    [tenths(of.caption_accuracy), of.target.map_or("-".to_owned(), tenths)]
}

fn row(name: &str, cells: &[String]) -> String {
    const WIDTHS: [usize; 8] = [9, 15, 9, 9, 9, 7, 8, 8];
    let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!(" {cell:>width$}"));
    format!("{name:<16}{}\n", cells.collect::<String>())
}
