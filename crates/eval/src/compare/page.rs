//! The page itself: one HTML file that asks the network for nothing.

use super::figures::Figures;
use super::headline::headline;
use super::model::Comparison;
use super::tables::{self, n_prompts};
use super::{charts, images};
use crate::report::text::escape;
use crate::report::{Fact, fact_list};

const BASE_STYLE: &str = include_str!("../report/style.css");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Renders a comparison as one HTML file. Equal comparisons give equal bytes.
///
/// The file carries its style, its script and its images, and forbids the browser to load anything else.
pub fn page(comparison: &Comparison, figures: &Figures) -> String {
    let sections = [
        header(comparison, figures),
        tables::cards(comparison, figures),
        how_to_read(comparison),
        tables::matrix(comparison, figures),
        tables::standings(comparison, figures),
        tables::agreement(comparison, figures),
        tables::categories(comparison, figures),
        charts::section(comparison, figures),
        images::section(comparison, figures),
        settings(comparison),
    ];
    let sections = sections.concat();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="tastemaker">
<title>{}</title>
<style>
{BASE_STYLE}{STYLE}</style>
</head>
<body>
{}<main>
{sections}</main>
<dialog id="zoom" aria-label="Enlarged image"><p id="zoom-prompt"></p><img alt=""><div id="zoom-names"></div><p class="small keys"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> model, <kbd>&uarr;</kbd> <kbd>&darr;</kbd> prompt, <kbd>Esc</kbd> close</p></dialog>
<script>
{SCRIPT}</script>
</body>
</html>
"#,
        escape(&title(comparison)),
        bar(comparison, &sections)
    )
}

fn title(comparison: &Comparison) -> String {
    match comparison.models.as_slice() {
        [first, other] => format!("{} against {}", other.name, first.name),
        several => format!("{} models, measured by {}", several.len(), several[0].name),
    }
}

/// Links to the sections that are there, the choice of a scorer, the theme.
fn bar(comparison: &Comparison, sections: &str) -> String {
    let links: String = [
        ("verdicts", "Win rates"),
        ("matrix", "Matrix"),
        ("scores", "Scores"),
        ("agreement", "Agreement"),
        ("categories", "Categories"),
        ("distributions", "Distributions"),
        ("images", "Images"),
        ("settings", "Settings"),
    ]
    .into_iter()
    .filter(|(id, _)| sections.contains(&format!("<section id=\"{id}\">")))
    .map(|(id, name)| format!("<a href=\"#{id}\">{name}</a>"))
    .collect();
    let options: String = comparison
        .scorers
        .iter()
        .enumerate()
        .map(|(index, scorer)| format!("<option value=\"{index}\">{}</option>", escape(&scorer.name)))
        .collect();
    let choice = match comparison.scorers.len() {
        1 => String::new(),
        _ => format!(
            "<label id=\"judge-choice\" hidden>Scored by <select id=\"scorer\">{options}</select></label>"
        ),
    };
    format!(
        "<nav id=\"bar\"><div>{links}<span class=\"gap\"></span>{choice}<button id=\"theme\" type=\"button\" hidden>Light or \
         dark</button></div></nav>\n"
    )
}

fn header(comparison: &Comparison, figures: &Figures) -> String {
    let (n_prompts, n_images) = (n_prompts(comparison), comparison.samples.len());
    let images = match n_images == n_prompts {
        true => "one image each".to_owned(),
        false => format!("{n_images} images each"),
    };
    let scorers: Vec<String> =
        comparison.scorers.iter().map(|scorer| format!("<b>{}</b>", escape(&scorer.name))).collect();
    format!(
        "<header>\n<p class=\"eyebrow\">tastemaker compare &middot; {} &middot; {n_prompts} prompts, {images}</p>\n<h1>{}</h1>\n\
         <p class=\"lede\">{} Scored by {}.</p>\n</header>\n",
        escape(&comparison.prompts_name),
        escape(&title(comparison)),
        escape(&headline(comparison, figures)),
        scorers.join(", ")
    )
}

fn how_to_read(comparison: &Comparison) -> String {
    format!(
        "<section id=\"reading\">\n<h2>How to read this page</h2>\n<p>All models have the same prompts, models from the same \
         starting noise. The <b>win rate</b> is the share of these duels in which an image scores higher than that of \
         <b>{}</b>, ties counting half; 50% means no difference. The whisker is the 95% Wilson interval: only when all of it lies \
         right of the middle line is a model shown to be better <em>by this scorer</em>. A scorer is a model of what people \
         prefer, not people: look at the images too.</p>\n</section>\n",
        escape(&comparison.models[0].name)
    )
}

fn settings(comparison: &Comparison) -> String {
    let models: String = comparison
        .models
        .iter()
        .enumerate()
        .map(|(index, model)| {
            let what = [Fact::new("what", &model.what)];
            format!(
                "<h3>{}</h3>\n<dl>\n{}{}</dl>\n",
                tables::label(comparison, index),
                fact_list(&what),
                fact_list(&model.settings)
            )
        })
        .collect();
    format!(
        "<section id=\"settings\">\n<h2>Settings</h2>\n<dl>\n{}</dl>\n{models}</section>\n",
        fact_list(&comparison.settings)
    )
}
