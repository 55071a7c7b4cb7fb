//! The page.

use tastemaker_math::intervals::Interval;
use tastemaker_pages::charts::rate_bar;
use tastemaker_pages::format::{count, sentence, shortened, tenths};
use tastemaker_pages::{Fact, Markup, Page, RowImage, Section, facts, html, image_row, number, table, tag};

use super::checks::{CHECKS, Check, Severity};
use super::finding::Subject;
use super::summary::{LabelCounts, SIZE_BINS, Summary};
use super::worst::Case;
use crate::Side;

/// Captions are cut to this many characters.
const CAPTION_LENGTH: usize = 240;

/// Renders a check. Equal checks give equal bytes.
pub fn page(summary: &Summary, cases: &[Case<'_>]) -> String {
    let heading = match (summary.n(Severity::Error), summary.n(Severity::Warning)) {
        (0, 0) => "Nothing found".to_owned(),
        (0, _) => "Every row can be trained on".to_owned(),
        (1, _) => "One row cannot be trained on".to_owned(),
        (n, _) => format!("{} rows cannot be trained on", count(n)),
    };
    let looked_at = if summary.labels.is_some() { "Images to look at" } else { "Pairs to look at" };
    let sections = [
        pairs(cases).map(|body| Section::new("pairs", looked_at, body)),
        Some(Section::new("counts", "Counts", cards(summary))),
        Some(Section::new("findings", "Findings", findings(summary))),
        Some(Section::new(
            "sizes",
            "Sizes and order",
            html! { div.columns { (sizes(summary)) (order(summary)) } },
        )),
        skipped(cases).map(|body| Section::new("skipped", "Rows skipped", body)),
        Some(Section::new("settings", "Settings", settings(summary))),
    ];
    let page = Page {
        eyebrow: format!("tastemaker data check \u{b7} {}", summary.path),
        heading,
        lede: html! { (lede(summary)) },
        controls: html! {},
        sections: sections.into_iter().flatten().collect(),
    };
    page.render()
}

fn lede(summary: &Summary) -> String {
    let most = CHECKS.iter().filter(|check| check.severity == Severity::Warning);
    let most = most.max_by_key(|check| (summary.rows[check.kind as usize], std::cmp::Reverse(check.kind)));
    match most.map(|check| (check, summary.rows[check.kind as usize])) {
        Some((check, 1)) => format!("The most frequent warning: one row with {}.", check.what),
        Some((check, n)) if n > 1 => {
            format!("The most frequent warning: {} rows with {}.", count(n), check.what)
        }
        _ if summary.labels.is_some() => "No warnings: every image that is left decodes.".to_owned(),
        _ => "No warnings: every pair that is left decodes, differs and comes once.".to_owned(),
    }
}

fn cards(summary: &Summary) -> Markup {
    let (errors, warnings) = (summary.n(Severity::Error), summary.n(Severity::Warning));
    let skipped = format!("{} skipped", count(summary.n_rows - summary.n_usable));
    let held_out = format!("{} held out", count(summary.n_held_out));
    let to_use = if summary.labels.is_some() { "images to use" } else { "pairs to use" };
    let cards = [
        ("", summary.n_rows, "rows", skipped),
        ("", summary.n_usable, to_use, held_out),
        (if errors > 0 { "bad" } else { "good" }, errors, "errors", "skipped by training".into()),
        (if warnings > 0 { "care" } else { "good" }, warnings, "warnings", "trained on".into()),
    ];
    html! {
        ul.cards {
            @for (class, n, what, more) in &cards {
                li.card { p class={ "big " (class) } { (count(*n)) } h3 { (what) } p.small { (more) } }
            }
        }
    }
}

fn severity(check: &Check) -> Markup {
    tag(check.severity.name(), check.severity.name())
}

fn findings(summary: &Summary) -> Markup {
    let (found, clean): (Vec<&Check>, Vec<&Check>) =
        CHECKS.iter().partition(|check| summary.rows[check.kind as usize] > 0);
    let row = |check: &&Check| {
        let n = summary.rows[check.kind as usize];
        let fraction = n as f64 / summary.n_rows.max(1) as f64;
        let fraction = if fraction < 0.001 { "< 0.1%".to_owned() } else { tenths(fraction) };
        html! {
            td { (severity(check)) } th scope="row" { (check.name) } (number(count(n), None))
            (number("", Some(fraction))) td { (check.severity.outcome()) } td.text { (sentence(check.what)) br; i { (sentence(check.why)) } }
        }
    };
    let heads = ["", "check", "rows", "fraction", "the row is", "it has"];
    let clean: Vec<&str> = clean.into_iter().map(|check| check.name).collect();
    html! {
        @if !found.is_empty() { (table("stacks", &heads, found.iter().map(row))) }
        @if !clean.is_empty() { p.small { "Looked for and not found: " (clean.join(", ")) "." } }
    }
}

fn sizes(summary: &Summary) -> Markup {
    let most = summary.sizes.iter().copied().max().unwrap_or(0).max(1);
    let n_images: u64 = summary.sizes.iter().sum();
    let label = |i: usize| match (i, SIZE_BINS.get(i + 1)) {
        (0, Some(next)) => format!("below {next}"),
        (_, Some(next)) => format!("{} to {}", SIZE_BINS[i], next - 1),
        (_, None) => format!("{} and more", SIZE_BINS[i]),
    };
    let is_small = |i: usize| SIZE_BINS.get(i + 1).is_some_and(|&next| next <= summary.settings.resolution);
    html! {
        div {
            p.small {
                "Shorter side of " (count(n_images)) " images in pixels; training takes " (summary.settings.resolution) "."
            }
            table.levels {
                @for (i, &n) in summary.sizes.iter().enumerate() {
                    @let width = format!("width:{:.1}%", 100.0 * n as f64 / most as f64);
                    tr {
                        th scope="row" { (label(i)) } td { span.level.care[is_small(i)] style=(width) {} }
                        (number(count(n), None))
                    }
                }
            }
        }
    }
}

fn order(summary: &Summary) -> Markup {
    if let Some(LabelCounts { n_liked, n_disliked }) = summary.labels {
        let words = format!("{} images are liked, {} are not.", count(n_liked), count(n_disliked));
        return html! { div { p.small { (words) } } };
    }
    let Some(rate) = summary.winner_first() else {
        return html! { div { p.small { "This layout lists winner and loser in no order." } } };
    };
    let Interval { estimate, low, high } = rate;
    html! {
        div {
            p.small {
                "Fraction of " (count(summary.n_winner_first + summary.n_loser_first)) " pairs whose winner is listed first; \
                 the whisker is the 95% Wilson interval."
            }
            p.big { (tenths(estimate)) }
            (rate_bar(&rate, "c1"))
            p.small { (tenths(low)) " to " (tenths(high)) "; without an order it would be half of them." }
        }
    }
}

fn pairs(cases: &[Case<'_>]) -> Option<Markup> {
    let pairs: Vec<&Case<'_>> =
        cases.iter().filter(|case| matches!(case.finding.subject, Subject::Pair(..))).collect();
    let images = |case: &Case<'_>| {
        if case.is_single {
            let (name, image) = ("image", case.thumbnails[0].as_ref());
            return image_row([RowImage { name, alt: name.to_owned(), image, caption: html! {} }]);
        }
        let image = |(side, image)| {
            let name = Side::name(side);
            let here = case.finding.side == Some(side);
            let caption = html! { @if here { b { (name) } } @else { (name) } };
            RowImage { name, alt: name.to_owned(), image: Option::as_ref(image), caption }
        };
        image_row(Side::BOTH.into_iter().zip(&case.thumbnails).map(image))
    };
    (!pairs.is_empty()).then(|| {
        html! {
            p.small { "The worst of each kind; all are in check.jsonl." }
            div.exhibits style="--n:1.9" {
                @for case in pairs {
                    @let check = case.finding.kind.check();
                    article.exhibit {
                        h3 { (check.name) }
                        p.tags { (severity(check)) (tag("", check.severity.outcome())) span.small { (case.finding.place) } }
                        (images(case))
                        p { (case.finding.detail) }
                        @if let Some(file) = &case.finding.file { p.small { (file.display()) } }
                        p.small { (shortened(case.caption.unwrap_or_default(), CAPTION_LENGTH)) }
                    }
                }
            }
        }
    })
}

fn skipped(cases: &[Case<'_>]) -> Option<Markup> {
    let rows: Vec<Markup> = cases
        .iter()
        .filter(|case| matches!(case.finding.subject, Subject::Skipped(_)))
        .map(|case| {
            let check = case.finding.kind.check();
            html! {
                td { (severity(check)) } th scope="row" { (check.name) } td { (case.finding.place) }
                td.text { (case.finding.detail) }
            }
        })
        .collect();
    (!rows.is_empty()).then(|| {
        html! {
            p.small { "The first of each kind; all are in check.jsonl." }
            (table("stacks", &["", "check", "row", "found"], rows))
        }
    })
}

fn settings(summary: &Summary) -> Markup {
    let settings = &summary.settings;
    facts(&[
        Fact::new("set", &summary.path),
        Fact::new("training resolution", format!("{} pixels", settings.resolution)),
        Fact::new("held-out fraction", settings.held_out_fraction),
        Fact::new("seed", settings.seed),
        Fact::new("tokens of captions", settings.caption_tokens.map_or(0, |tokens| tokens.limit)),
    ])
}
