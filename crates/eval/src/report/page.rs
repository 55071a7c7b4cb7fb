//! The page itself: one HTML file that asks the network for nothing.

use super::findings::{Verdict, findings};
use super::model::{Alarm, Fact, Method, Report, Severity};
use super::text::{duration, escape, percent, signed_points};
use super::{charts, images, tables};
use crate::EvalError;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Renders a report as one HTML file. Equal reports give equal bytes.
///
/// The file carries its style, its script and its images, and forbids the browser to load anything else.
///
/// # Errors
/// A report whose parts do not belong together.
pub fn page(report: &Report) -> Result<String, EvalError> {
    report.validate()?;
    let title = escape(&report.title);
    let sections = [
        header(report),
        alarms(report),
        verdict_cards(report),
        how_to_read(report),
        images::section(report),
        tables::win_rates(report),
        tables::costs(report),
        charts::section(report),
        tables::judge(report),
        settings(report),
    ];
    Ok(format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="tastemaker">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
{}</main>
<dialog id="zoom"><img alt=""><p></p></dialog>
<script>
{SCRIPT}</script>
</body>
</html>
"#,
        sections.concat()
    ))
}

/// The CSS class that carries a method's color: the control is gray, the others take the palette in order.
pub(super) fn color_class(report: &Report, name: &str) -> String {
    const PALETTE: usize = 6;
    let others = || report.methods.iter().filter(|method| !method.is_control);
    match others().position(|method| method.name == name) {
        Some(position) => format!("c{}", position % PALETTE + 1),
        None => "c0".to_owned(),
    }
}

/// A method's name behind a dot of its color.
pub(super) fn method_label(report: &Report, method: &Method) -> String {
    format!(r#"<span class="dot {}"></span>{}"#, color_class(report, &method.name), escape(&method.label))
}

fn header(report: &Report) -> String {
    format!(
        r#"<header>
<p class="eyebrow">tastemaker report &middot; task {} &middot; seed {} <button id="theme" type="button" hidden>Light or dark</button></p>
<h1>{}</h1>
<p class="lede">{} The pairs prefer {}.</p>
</header>
"#,
        escape(&report.task),
        report.seed,
        escape(&report.title),
        headline(report),
        escape(&report.goal)
    )
}

/// The result in one sentence.
fn headline(report: &Report) -> String {
    let contenders: Vec<&Method> = report.methods.iter().filter(|method| !method.is_control).collect();
    let winners = contenders
        .iter()
        .filter_map(|method| method.outcome.as_ref())
        .filter(|outcome| Verdict::of(&outcome.versus_base.held_out) == Verdict::Better)
        .count();
    match (contenders.len(), winners) {
        (0, _) => "No method was compared.".to_owned(),
        (1, 1) => "The method beats the base model on captions kept out of its training pairs.".to_owned(),
        (1, _) => {
            "The method is not shown to beat the base model on captions kept out of its training pairs."
                .to_owned()
        }
        (all, won) if all == won => {
            format!("All {all} methods beat the base model on captions kept out of their training pairs.")
        }
        (all, 0) => format!(
            "None of {all} methods is shown to beat the base model on captions kept out of their training pairs."
        ),
        (all, 1) => {
            format!("One of {all} methods beats the base model on captions kept out of their training pairs.")
        }
        (all, won) => format!(
            "{won} of {all} methods beat the base model on captions kept out of their training pairs."
        ),
    }
}

fn alarms(report: &Report) -> String {
    let found = findings(report);
    let Some(worst) = found.first() else { return String::new() };
    let heading = if worst.severity == Severity::Remark { "Worth knowing" } else { "What went wrong" };
    // One box per method, the method with the worst finding first.
    let mut boxes: Vec<Vec<&Alarm>> = Vec::new();
    for alarm in &found {
        match boxes.iter_mut().find(|alarms| alarms[0].method == alarm.method) {
            Some(alarms) => alarms.push(alarm),
            None => boxes.push(vec![alarm]),
        }
    }
    let boxes: String = boxes.iter().map(|alarms| alarm_box(alarms)).collect();
    format!("<section id=\"alarms\">\n<h2>{heading}</h2>\n<ul class=\"alarms\">\n{boxes}</ul>\n</section>\n")
}

fn alarm_box(alarms: &[&Alarm]) -> String {
    let (class, word) = match alarms[0].severity {
        Severity::Failure => ("failure", "Failed"),
        Severity::Warning => ("warning", "Caution"),
        Severity::Remark => ("remark", "Note"),
    };
    let about =
        alarms[0].method.as_ref().map(|label| format!("<h3>{}</h3>", escape(label))).unwrap_or_default();
    let what: String = alarms.iter().map(|alarm| format!("<p>{}</p>", escape(&alarm.what))).collect();
    format!("<li class=\"{class}\"><span class=\"tag\">{word}</span><div>{about}{what}</div></li>\n")
}

fn verdict_cards(report: &Report) -> String {
    let card = |method: &Method| {
        let class = color_class(report, &method.name);
        let label = method_label(report, method);
        let Some(outcome) = &method.outcome else {
            return format!(
                "<li class=\"card {class}\"><h3>{label}</h3>\n<p class=\"big\">&ndash;</p>\n\
                 <p class=\"verdict worse\">no result</p></li>\n"
            );
        };
        let held_out = &outcome.versus_base.held_out;
        let verdict = Verdict::of(held_out);
        let verdict_class = match verdict {
            Verdict::Better => "better",
            Verdict::Unclear => "unclear",
            Verdict::Worse => "worse",
        };
        let change = outcome.shares.held_out.caption_accuracy - report.base.held_out.caption_accuracy;
        format!(
            "<li class=\"card {class}\"><h3>{label}</h3>\n<p class=\"big\">{}</p>\n\
             <p class=\"verdict {verdict_class}\">{}</p>\n{}\n\
             <p class=\"small\">captions {} points<br>{} steps, {}</p></li>\n",
            percent(held_out.rate),
            match verdict {
                Verdict::Unclear => verdict.word().to_owned(),
                _ => format!("{} than the base", verdict.word()),
            },
            charts::win_bar(held_out, &class),
            signed_points(change),
            method.training.steps,
            duration(method.training.seconds)
        )
    };
    let cards: String = report.methods.iter().map(card).collect();
    format!(
        "<section id=\"verdicts\">\n<h2>Win rate against the base, held-out captions</h2>\n\
         <ul class=\"cards\">\n{cards}</ul>\n</section>\n"
    )
}

fn how_to_read(report: &Report) -> String {
    let control = match report.methods.iter().find(|method| method.is_control) {
        Some(control) => format!(
            " <b>{}</b> is a control that merely imitates the winners: a method earns its keep only where it \
             also beats the control, or does the same with less damage.",
            escape(&control.label)
        ),
        None => String::new(),
    };
    format!(
        "<section id=\"reading\">\n<h2>How to read this page</h2>\n<p>Every model generated the same prompts from the \
         same starting noise as the base it came from, and a judge scored each image. The <b>win rate</b> is the share of \
         these duels in which the aligned model scored higher, ties counting half; 50% means no change. The whisker is \
         the 95% Wilson interval: only when all of it lies right of the middle line is the model shown to be better. \
         <b>Held-out</b> captions were kept out of the training pairs, so they tell learning from memorizing; \
         <b>seen</b> captions were in them. <b>Caption accuracy</b> is how often the judge recognizes what was asked \
         for; it should not fall.{control}</p>\n</section>\n"
    )
}

/// Rows of a list of facts.
pub(crate) fn fact_list(facts: &[Fact]) -> String {
    let row =
        |fact: &Fact| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(&fact.name), escape(&fact.value));
    facts.iter().map(row).collect()
}

fn settings(report: &Report) -> String {
    let methods: String = report
        .methods
        .iter()
        .filter(|method| !method.settings.is_empty())
        .map(|method| {
            format!("<h3>{}</h3>\n<dl>\n{}</dl>\n", method_label(report, method), fact_list(&method.settings))
        })
        .collect();
    format!(
        "<section id=\"settings\">\n<h2>Settings</h2>\n<dl>\n{}</dl>\n{methods}</section>\n",
        fact_list(&report.settings)
    )
}
