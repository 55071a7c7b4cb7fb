//! The tables of the page.

use super::charts::win_cell;
use super::findings::{CAPTION_ACCURACY_TOLERANCE, WINNER_DRIFT_LIMIT};
use super::model::{Method, Outcome, Report, Shares};
use super::page::{color_class, method_label};
use super::text::{duration, escape, memory, percent, ratio, signed_points};
use crate::scorers::ScorerCheck;
use crate::winrate::{Bounds, Group, Split, WinRate};

const NOTHING: &str = "<td class=\"none\">&ndash;</td>";

/// Win rates against the base.
pub(super) fn win_rates(report: &Report) -> String {
    let duels = match report.methods.iter().find_map(|method| method.outcome.as_ref()) {
        Some(Outcome { versus_base: Split { held_out, seen }, .. }) => {
            format!(", {} on held-out and {} on seen captions", held_out.n, seen.n)
        }
        None => String::new(),
    };
    let rows: String = report
        .methods
        .iter()
        .map(|method| {
            let class = color_class(report, &method.name);
            let base = method.outcome.as_ref().map(|outcome| &outcome.versus_base);
            let mut cells = win_cells(base, &class);
            cells.push_str(
                &base.map_or_else(|| NOTHING.to_owned(), |base| difference(&base.held_out.mean_difference)),
            );
            row(report, method, &cells)
        })
        .collect();
    format!(
        "<section id=\"win-rates\">\n<h2>Win rates</h2>\n\
         <p>Duels on equal prompts and equal starting noise{duels}. Bar: win rate; whisker: 95% Wilson interval; middle line: \
         50%, no change. The last column is the mean difference of the judge's score on held-out captions, \
         with a 95% bootstrap interval over prompts.</p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Method</th>\
         <th scope=\"col\">against base, held out</th><th scope=\"col\">against base, seen</th>\
         <th scope=\"col\">score difference ({})</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n{}</section>\n",
        escape(&report.score_unit),
        head_to_head(report)
    )
}

/// Every method against every other, on held-out captions.
fn head_to_head(report: &Report) -> String {
    let generated: Vec<&Method> = report.methods.iter().filter(|method| method.outcome.is_some()).collect();
    if generated.len() < 2 {
        return String::new();
    }
    let heads: String =
        generated.iter().map(|other| format!("<th scope=\"col\">{}</th>", escape(&other.label))).collect();
    let rows: String = generated
        .iter()
        .map(|method| {
            let class = color_class(report, &method.name);
            let cells: String = generated
                .iter()
                .map(|other| {
                    let outcome = method.outcome.as_ref();
                    let versus = outcome.and_then(|outcome| outcome.versus_methods.get(&other.name));
                    versus.map_or_else(
                        || NOTHING.to_owned(),
                        |rates| win_cell(&rates.held_out, &class, percent),
                    )
                })
                .collect();
            row(report, method, &cells)
        })
        .collect();
    format!(
        "<h3>Head to head</h3>\n<p>How often the row beats the column, on held-out captions.</p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Method</th>{heads}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn win_cells(rates: Option<&Split<WinRate>>, class: &str) -> String {
    rates.map_or_else(
        || NOTHING.repeat(2),
        |rates| [Group::HeldOut, Group::Seen].map(|group| win_cell(rates.of(group), class, percent)).concat(),
    )
}

fn difference(bounds: &Bounds) -> String {
    let signed = |value: f64| format!("{value:+.2}").replace('-', "\u{2212}");
    let Bounds { value, low, high } = *bounds;
    format!("<td class=\"number\">{}<br><i>{} to {}</i></td>", signed(value), signed(low), signed(high))
}

/// What each model kept of the base, and what its training took.
pub(super) fn costs(report: &Report) -> String {
    let target_head = match &report.target {
        Some(target) => format!(
            "<th scope=\"col\">{0}, held out</th><th scope=\"col\">{0}, seen</th>",
            escape(&target.label)
        ),
        None => String::new(),
    };
    let base_cells = format!("{}{}", share_cells(report, &report.base), NOTHING.repeat(5));
    let base_row = format!("<tr><th scope=\"row\">Base</th>{base_cells}</tr>\n");
    let rows: String = report
        .methods
        .iter()
        .map(|method| {
            let n_shares = if report.target.is_some() { 4 } else { 2 };
            let shares = method
                .outcome
                .as_ref()
                .map_or_else(|| NOTHING.repeat(n_shares), |outcome| share_cells(report, &outcome.shares));
            row(report, method, &(shares + &training_cells(method)))
        })
        .collect();
    format!(
        "<section id=\"costs\">\n<h2>What it kept, what it took</h2>\n\
         <p>Changes against the base are in percentage points. The error ratios compare the model's squared error on \
         winners and losers with the reference's at the end of training: winners should not rise much above 1.</p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Model</th>\
         <th scope=\"col\">caption accuracy, held out</th><th scope=\"col\">caption accuracy, seen</th>{target_head}\
         <th scope=\"col\">winner error ratio</th><th scope=\"col\">loser error ratio</th>\
         <th scope=\"col\">steps</th><th scope=\"col\">training time</th><th scope=\"col\">peak memory</th></tr></thead>\n\
         <tbody>\n{base_row}{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

fn share_cells(report: &Report, shares: &Split<Shares>) -> String {
    let cell = |group: Group, figure: fn(&Shares) -> Option<f64>, tolerance: f64| {
        let Some(value) = figure(shares.of(group)) else { return NOTHING.to_owned() };
        let change =
            figure(report.base.of(group)).map(|base| value - base).filter(|_| shares != &report.base);
        let class = if change.is_some_and(|change| change < -tolerance) { "number fell" } else { "number" };
        let change = change.map(|change| format!(" <i>{}</i>", signed_points(change))).unwrap_or_default();
        format!("<td class=\"{class}\">{}{change}</td>", percent(value))
    };
    let groups = [Group::HeldOut, Group::Seen];
    let captions = groups
        .map(|group| cell(group, |shares| Some(shares.caption_accuracy), CAPTION_ACCURACY_TOLERANCE))
        .concat();
    let targets = match report.target {
        Some(_) => groups.map(|group| cell(group, |shares| shares.target_share, f64::INFINITY)).concat(),
        None => String::new(),
    };
    captions + &targets
}

fn training_cells(method: &Method) -> String {
    let (winner, loser) = method.final_error_ratios();
    let number = |text: Option<String>, class: &str| {
        text.map_or_else(|| NOTHING.to_owned(), |text| format!("<td class=\"number{class}\">{text}</td>"))
    };
    let drifted = winner.is_some_and(|winner| winner > WINNER_DRIFT_LIMIT);
    [
        number(winner.map(ratio), if drifted { " fell" } else { "" }),
        number(loser.map(ratio), ""),
        number(Some(method.training.steps.to_string()), ""),
        number(Some(duration(method.training.seconds)), ""),
        number(method.training.peak_memory_bytes.map(memory), ""),
    ]
    .concat()
}

fn row(report: &Report, method: &Method, cells: &str) -> String {
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", method_label(report, method))
}

/// How far the judge can be trusted.
pub(super) fn judge(report: &Report) -> String {
    let rows: String = report
        .judge_check
        .iter()
        .map(|check| {
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{:.1}%</td>\
                 <td class=\"number\">{:.1}%</td></tr>\n",
                escape(&check.disturbance),
                check.n,
                check.caption_accuracy * 100.0,
                check.style_accuracy * 100.0
            )
        })
        .collect();
    let table = if rows.is_empty() {
        String::new()
    } else {
        format!(
            "<p>Before it judged any model, it read real artworks that were disturbed in these ways, and had to \
             name what they show and how they are drawn:</p>\n<div class=\"scroll\"><table class=\"narrow\">\n\
             <thead><tr><th scope=\"col\">Disturbance</th><th scope=\"col\">artworks</th>\
             <th scope=\"col\">caption named</th><th scope=\"col\">style named</th></tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table></div>\n"
        )
    };
    let scorer = report.scorer_check.as_ref().map(scorer).unwrap_or_default() + &second_opinion(report);
    format!(
        "<section id=\"judge\">\n<h2>The judge</h2>\n<p>{}</p>\n{table}{scorer}</section>\n",
        escape(&report.judge)
    )
}

/// How far the learned preference scorer can be trusted.
fn scorer(check: &ScorerCheck) -> String {
    let rows: String = check
        .rows
        .iter()
        .map(|row| {
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td>\
                 <td class=\"number\">{:.1}% <i>{} to {}</i></td><td class=\"number\">{:.1}%</td>\
                 <td class=\"number\">{:.1}%</td></tr>\n",
                escape(&row.pairs),
                row.n,
                row.accuracy * 100.0,
                percent(row.wilson_low),
                percent(row.wilson_high),
                row.judge_accuracy * 100.0,
                row.agreement * 100.0
            )
        })
        .collect();
    format!(
        "<h3>The preference scorer</h3>\n<p>A second opinion, learned from {} ranked pairs of real art whose captions \
         were not held out. Before it was used, it ranked real art of held-out captions, with a 95% Wilson interval:</p>\n\
         <div class=\"scroll\"><table class=\"narrow\">\n\
         <thead><tr><th scope=\"col\">Held-out pairs</th><th scope=\"col\">pairs</th>\
         <th scope=\"col\">ranked rightly</th><th scope=\"col\">by the judge</th>\
         <th scope=\"col\">both decide alike</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n",
        check.n_train_pairs
    )
}

/// Win rates by the learned preference scorer, beside the judge's.
fn second_opinion(report: &Report) -> String {
    let rows: String = report
        .methods
        .iter()
        .filter_map(|method| {
            let outcome = method.outcome.as_ref()?;
            let by_scorer = outcome.versus_base_by_scorer.as_ref()?;
            let class = color_class(report, &method.name);
            let cells = [by_scorer, &outcome.versus_base.held_out]
                .map(|rate| win_cell(rate, &class, percent))
                .concat();
            Some(row(report, method, &cells))
        })
        .collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<p>The same duels against the base on held-out captions, decided by either:</p>\n\
         <div class=\"scroll\"><table class=\"narrow\">\n<thead><tr><th scope=\"col\">Method</th>\
         <th scope=\"col\">by the preference scorer</th><th scope=\"col\">by the judge</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}
