//! Results as text, for a terminal.

use std::fmt::Write as _;

use tastemaker_pages::format::{percent, tenths};

use super::{Matrix, ModelComparison, Of, Rate, Results, VoterResults};

/// Everything on one screen, as far as it goes.
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let some = |n: usize, thing: &str| format!("{n} {thing}{}", if n == 1 { "" } else { "s" });
    let (votes, pairs) = (some(results.n_votes, "vote"), some(results.n_items, "pair"));
    let _ = writeln!(out, "{}: {votes} on {pairs}", results.study);
    for question in &results.questions {
        let asked = &question.question;
        let _ = writeln!(out, "\n{}: {}", asked.key, asked.text);
        for comparison in &question.comparisons {
            let _ = writeln!(out, "  {}", line(comparison));
        }
        if let Some(matrix) = Matrix::of(question) {
            out += &square(&matrix);
        }
        let agreement = &question.agreement;
        let values = [
            ("Fleiss' kappa", agreement.fleiss_kappa),
            ("Krippendorff's alpha", agreement.krippendorff_ordinal),
        ];
        let values = values.iter().filter_map(|(name, value)| Some(format!("{name} {:.2}", (*value)?)));
        let values: Vec<String> = values.collect();
        if !values.is_empty() {
            let _ = writeln!(out, "  agreement over {} pairs: {}", agreement.n, values.join(", "));
        }
        for scorer in &question.scorers {
            let _ = writeln!(
                out,
                "  {} decides as people do on {} of {} pairs, {}",
                scorer.scorer,
                scorer.agree,
                scorer.n,
                with_interval(scorer.fraction)
            );
        }
        let missing = results.n_items - question.n_complete.min(results.n_items);
        if missing > 0 {
            let _ = writeln!(out, "  {missing} of {} pairs wait for votes", results.n_items);
        }
    }
    if results.voters.len() > 1 || results.voters.iter().any(|voter| voter.known.of + voter.consistent.of > 0)
    {
        let _ = writeln!(out);
        for voter in &results.voters {
            let _ = writeln!(out, "{}", voter_line(voter));
        }
    }
    out
}

fn line(comparison: &ModelComparison) -> String {
    let ModelComparison { a, b, category, wins, ties, losses, win_rate, .. } = comparison;
    let of = category.as_ref().map_or(String::new(), |category| format!(" [{category}]"));
    format!("{a} against {b}{of}: {} ({wins} won, {ties} tied, {losses} lost)", with_interval(*win_rate))
}

/// Each row's model against each column's.
fn square(matrix: &Matrix<'_>) -> String {
    const CORNER: &str = "row against column";
    let longest = matrix.models.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let (first, width) = (longest.max(CORNER.len()), longest.max(6));
    let mut out = format!("  {CORNER:first$}");
    for name in matrix.models.iter().chain(&["mean"]) {
        let _ = write!(out, "  {name:>width$}");
    }
    out.push('\n');
    for (name, rates, mean) in matrix.rows() {
        let _ = write!(out, "  {name:first$}");
        for rate in rates.iter().map(|rate| rate.map(|rate| rate.rate)).chain([mean]) {
            let _ = write!(out, "  {:>width$}", rate.map_or("-".to_owned(), tenths));
        }
        out.push('\n');
    }
    out
}

fn with_interval(Rate { rate, low, high }: Rate) -> String {
    format!("{} [{} to {}]", tenths(rate), tenths(low), tenths(high))
}

fn voter_line(voter: &VoterResults) -> String {
    let part = |words: &str, of: Of| of.fraction().map(|fraction| format!("{words} {}", percent(fraction)));
    let parts = [
        Some(format!("{} votes", voter.votes)),
        voter.median_seconds.map(|seconds| format!("{seconds:.1} s each")),
        part("as the others", voter.with_others),
        part("the same again", voter.consistent),
        part("known answers", voter.known),
    ];
    let below = if voter.below_threshold { "; below the threshold: look at these votes" } else { "" };
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}: {}{below}", voter.name, parts.join(", "))
}
