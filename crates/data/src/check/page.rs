//! The page: one HTML file that asks the network for nothing.

use tastemaker_math::intervals::Interval;

use super::checks::{CHECKS, Check, Severity};
use super::finding::Subject;
use super::summary::{SIDES, Summary};
use super::worst::Case;
use crate::Side;
use crate::html::{base64, escape};

const STYLE: &str = include_str!("style.css");

/// Captions are cut to this many characters.
const CAPTION_LENGTH: usize = 240;

/// Renders a check. Equal checks give equal bytes.
pub fn page(summary: &Summary, cases: &[Case<'_>]) -> String {
    let sections = [
        header(summary),
        cards(summary),
        findings(summary),
        figures(summary),
        images(cases),
        skipped(cases),
        settings(summary),
    ];
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="tastemaker">
<title>Check of {}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
{}</main>
</body>
</html>
"#,
        escape(&summary.path),
        sections.concat()
    )
}

fn header(summary: &Summary) -> String {
    let title = match (summary.n(Severity::Error), summary.n(Severity::Warning)) {
        (0, 0) => "Nothing found".to_owned(),
        (0, _) => "Every row can be trained on".to_owned(),
        (1, _) => "One row cannot be trained on".to_owned(),
        (n, _) => format!("{} rows cannot be trained on", count(n)),
    };
    format!(
        "<header>\n<p class=\"eyebrow\">tastemaker data check &middot; {}</p>\n<h1>{title}</h1>\n<p class=\"lede\">{}</p>\n\
         </header>\n",
        escape(&summary.path),
        escape(&lede(summary))
    )
}

fn lede(summary: &Summary) -> String {
    let most = CHECKS.iter().filter(|check| check.severity == Severity::Warning);
    let most = most.max_by_key(|check| (summary.rows[check.kind as usize], std::cmp::Reverse(check.kind)));
    match most.map(|check| (check, summary.rows[check.kind as usize])) {
        Some((check, 1)) => format!("The most frequent warning: one row with {}.", check.what),
        Some((check, n)) if n > 1 => {
            format!("The most frequent warning: {} rows with {}.", count(n), check.what)
        }
        _ => "No warnings: every pair that is left decodes, differs and comes once.".to_owned(),
    }
}

fn cards(summary: &Summary) -> String {
    let card = |class: &str, number: u64, what: &str, more: String| {
        format!(
            "<li class=\"card {class}\"><p class=\"big\">{}</p><h3>{what}</h3><p class=\"small\">{more}</p></li>\n",
            count(number)
        )
    };
    let (errors, warnings) = (summary.n(Severity::Error), summary.n(Severity::Warning));
    let out = summary.n_rows - summary.n_usable;
    let cards = [
        card("", summary.n_rows, "rows", format!("{} skipped", count(out))),
        card("", summary.n_usable, "pairs to use", format!("{} held out", count(summary.n_held_out))),
        card(if errors > 0 { "bad" } else { "good" }, errors, "errors", "cannot be trained on".into()),
        card(if warnings > 0 { "care" } else { "good" }, warnings, "warnings", "findings to look at".into()),
    ];
    format!("<section>\n<ul class=\"cards\">\n{}</ul>\n</section>\n", cards.concat())
}

fn tag(check: &Check) -> String {
    format!("<span class=\"tag {0}\">{0}</span>", check.severity.name())
}

fn findings(summary: &Summary) -> String {
    let row = |check: &Check| {
        let n = summary.rows[check.kind as usize];
        let share = 100.0 * n as f64 / summary.n_rows.max(1) as f64;
        let share = if n > 0 && share < 0.1 { "&lt; 0.1%".to_owned() } else { format!("{share:.1}%") };
        format!(
            "<tr><td>{}</td><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\"><i>{share}</i></td>\
             <td class=\"text\">{}<br><i>{}</i></td></tr>\n",
            tag(check),
            check.name,
            count(n),
            sentence(check.what),
            sentence(check.why)
        )
    };
    let found: String =
        CHECKS.iter().filter(|check| summary.rows[check.kind as usize] > 0).map(row).collect();
    let clean: Vec<&str> = CHECKS
        .iter()
        .filter(|check| summary.rows[check.kind as usize] == 0)
        .map(|check| check.name)
        .collect();
    let table = if found.is_empty() {
        String::new()
    } else {
        format!(
            "<div class=\"scroll\"><table>\n<thead><tr><th></th><th scope=\"col\">check</th><th scope=\"col\" class=\"number\">rows</th>\
             <th scope=\"col\" class=\"number\">share</th><th scope=\"col\">such a row has</th></tr></thead>\n\
             <tbody>\n{found}</tbody>\n</table></div>\n"
        )
    };
    let clean = if clean.is_empty() {
        String::new()
    } else {
        format!("<p class=\"small\">Looked for and not found: {}.</p>\n", clean.join(", "))
    };
    format!("<section>\n<h2>Findings</h2>\n{table}{clean}</section>\n")
}

fn figures(summary: &Summary) -> String {
    format!("<section class=\"figures\">\n{}{}</section>\n", sides(summary), balance(summary))
}

fn sides(summary: &Summary) -> String {
    let most = summary.sides.iter().copied().max().unwrap_or(0).max(1);
    let n_images: u64 = summary.sides.iter().sum();
    let bar = |(i, &n): (usize, &u64)| {
        let label = match (i, SIDES.get(i + 1)) {
            (0, Some(next)) => format!("below {next}"),
            (_, Some(next)) => format!("{} to {}", SIDES[i], next - 1),
            (_, None) => format!("{} and more", SIDES[i]),
        };
        let class = if SIDES.get(i + 1).is_some_and(|&next| next <= summary.settings.resolution) {
            "soft"
        } else {
            ""
        };
        let width = 100.0 * n as f64 / most as f64;
        format!(
            "<tr><th scope=\"row\">{label}</th><td><span class=\"bar {class}\" style=\"width:{width:.1}%\"></span></td>\
             <td class=\"number\">{}</td></tr>\n",
            count(n)
        )
    };
    let bars: String = summary.sides.iter().enumerate().map(bar).collect();
    format!(
        "<figure>\n<h2>Sizes</h2>\n<p class=\"small\">Shorter side of {} images in pixels; training takes {}.</p>\n\
         <table class=\"bars\">\n{bars}</table>\n</figure>\n",
        count(n_images),
        summary.settings.resolution
    )
}

fn balance(summary: &Summary) -> String {
    let Some(Interval { estimate, low, high }) = summary.winner_first() else {
        return "<figure>\n<h2>Order of the two images</h2>\n<p class=\"small\">This layout lists winner and loser in no order.</p>\n\
                </figure>\n"
            .to_owned();
    };
    const WIDTH: f64 = 400.0;
    let x = |share: f64| format!("{:.1}", WIDTH * share);
    let [rate, from, to] = [estimate, low, high].map(|share| 100.0 * share);
    format!(
        "<figure>\n<h2>Order of the two images</h2>\n<p class=\"small\">Share of {} pairs whose winner is listed first; \
         the whisker is the 95% Wilson interval.</p>\n<p class=\"big\">{rate:.1}%</p>\n\
         <svg class=\"balance\" viewBox=\"0 0 {WIDTH} 28\" role=\"img\" aria-label=\"{rate:.1}%, from {from:.1}% to {to:.1}%\">\
         <rect class=\"track\" x=\"0\" y=\"8\" width=\"{WIDTH}\" height=\"12\" rx=\"6\"/>\
         <rect class=\"fill\" x=\"0\" y=\"8\" width=\"{}\" height=\"12\" rx=\"6\"/>\
         <path class=\"half\" d=\"M{} 2V26\"/><path class=\"whisker\" d=\"M{} 14H{}\"/></svg>\n\
         <p class=\"small\">{from:.1}% to {to:.1}%; half of them would be chance.</p>\n</figure>\n",
        count(summary.n_winner_first + summary.n_loser_first),
        x(estimate),
        x(0.5),
        x(low),
        x(high)
    )
}

fn images(cases: &[Case<'_>]) -> String {
    let case = |case: &Case<'_>| {
        let check = case.finding.kind.check();
        let images: String = Side::BOTH
            .into_iter()
            .zip(&case.thumbnails)
            .map(|(side, jpeg)| {
                let name = side.name();
                let here = if case.finding.side == Some(side) { " here" } else { "" };
                let image = match jpeg {
                    Some(jpeg) => {
                        format!("<img alt=\"{name}\" src=\"data:image/jpeg;base64,{}\">", base64(jpeg))
                    }
                    None => "<span class=\"missing\">does not decode</span>".to_owned(),
                };
                format!("<div class=\"half{here}\">{image}<span>{name}</span></div>")
            })
            .collect();
        format!(
            "<li class=\"case\"><p class=\"head\">{}<b>{}</b><span>{}</span></p>\n<div class=\"pair\">{images}</div>\n\
             <p class=\"detail\">{}</p>\n<p class=\"caption\">{}</p></li>\n",
            tag(check),
            check.name,
            escape(&case.finding.place),
            escape(&sentence(&case.finding.detail)),
            escape(&shortened(case.caption.unwrap_or_default()))
        )
    };
    let is_pair = |case: &&Case<'_>| matches!(case.finding.subject, Subject::Pair(..));
    let list: String = cases.iter().filter(is_pair).map(case).collect();
    if list.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Pairs to look at</h2>\n<p class=\"small\">The worst of each kind; all are in check.jsonl.</p>\n<ul class=\"cases\">\n{list}</ul>\n</section>\n"
    )
}

fn skipped(cases: &[Case<'_>]) -> String {
    let rows: String = cases
        .iter()
        .filter(|case| matches!(case.finding.subject, Subject::Skipped(_)))
        .map(|case| {
            let check = case.finding.kind.check();
            format!(
                "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td><td class=\"text\">{}</td></tr>\n",
                tag(check),
                check.name,
                escape(&case.finding.place),
                escape(&sentence(&case.finding.detail))
            )
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Rows skipped</h2>\n<p class=\"small\">The first of each kind; all are in check.jsonl.</p>\n\
         <div class=\"scroll\"><table>\n<tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

fn settings(summary: &Summary) -> String {
    let settings = &summary.settings;
    let facts = [
        ("set", escape(&summary.path)),
        ("training resolution", format!("{} pixels", settings.resolution)),
        ("held-out fraction", settings.held_out_fraction.to_string()),
        ("seed", settings.seed.to_string()),
    ];
    let facts: String =
        facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    format!("<section>\n<h2>Settings</h2>\n<dl>\n{facts}</dl>\n</section>\n")
}

/// A number with thin spaces between thousands.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// With a capital in front and a full stop behind.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn shortened(caption: &str) -> String {
    match caption.char_indices().nth(CAPTION_LENGTH) {
        Some((end, _)) => format!("{}\u{2026}", &caption[..end]),
        None => caption.to_owned(),
    }
}
