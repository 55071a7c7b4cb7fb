//! The page.

use tastemaker_pages::{Fact, Markup, Page, Section, facts, html};

use super::headline::headline;
use super::model::{Comparison, Extras};
use super::results::Results;
use super::{images, tables};

/// Renders a comparison as one HTML file. Equal comparisons give equal bytes.
pub fn page(comparison: &Comparison, results: &Results, extras: &Extras) -> String {
    let baseline = comparison.baseline();
    let (n_models, n_scorers) = (comparison.models.len(), comparison.scorers.len());
    let on = comparison.focus.as_ref().map_or(String::new(), |focus| format!(", {focus}"));
    let section = |wanted: bool, id, heading, body: &dyn Fn() -> Markup| {
        wanted.then(|| Section::new(id, heading, body()))
    };
    let against = format!("Win rate against {baseline}{on}");
    let sections = [
        section(!comparison.shown.is_empty(), "images", "Images", &|| images::section(comparison, results)),
        section(n_models > 1, "win-rates", "Win rates", &|| tables::cards(comparison, results, extras))
            .map(|section| section.headed(against)),
        section(true, "reading", "How to read this page", &|| how_to_read(comparison, extras)),
        section(n_models > 2, "matrix", "Matrix", &|| tables::matrix(comparison, results))
            .map(|section| section.headed(format!("Pairwise win rates{on}"))),
        section(true, "scores", "Scores", &|| tables::scores(comparison, results)),
        section(n_scorers > 1 && n_models > 1, "agreement", "Agreement", &|| {
            tables::agreement(comparison, results)
        })
        .map(|section| section.headed("Do the scorers agree?".to_owned())),
        section(!results.categories.is_empty() && n_models > 1, "categories", "Categories", &|| {
            tables::categories(comparison, results)
        }),
        section(n_models > 1, "distributions", "Distributions", &|| {
            tables::distributions(comparison, results)
        }),
    ];
    let sections = extras.before.iter().cloned().chain(sections.into_iter().flatten());
    let settings = Section::new("settings", "Settings", settings(comparison));
    let page = Page {
        eyebrow: eyebrow(comparison, extras),
        heading: heading(comparison, extras),
        lede: lede(comparison, results, extras),
        controls: scorer_choice(comparison),
        sections: sections.chain(extras.after.iter().cloned()).chain([settings]).collect(),
    };
    page.render()
}

fn eyebrow(comparison: &Comparison, extras: &Extras) -> String {
    let (n_prompts, n_images) = (comparison.n_prompts(), comparison.samples.len());
    let images = if n_images == n_prompts { "one image".to_owned() } else { format!("{n_images} images") };
    format!(
        "tastemaker {} \u{b7} {} \u{b7} {n_prompts} prompts, {images} of each model",
        extras.command, comparison.prompts_name
    )
}

fn heading(comparison: &Comparison, extras: &Extras) -> String {
    match (&extras.heading, comparison.models.as_slice()) {
        (Some(heading), _) => heading.clone(),
        (None, [baseline, other]) => format!("{} against {}", other.name, baseline.name),
        (None, several) => format!("{} models against {}", several.len() - 1, comparison.baseline()),
    }
}

fn lede(comparison: &Comparison, results: &Results, extras: &Extras) -> Markup {
    html! {
        (headline(comparison, results)) " " (extras.lede) " Scored by "
        @for (index, scorer) in comparison.scorers.iter().enumerate() { @if index > 0 { ", " } b { (scorer.name) } } "."
    }
}

fn scorer_choice(comparison: &Comparison) -> Markup {
    html! {
        @if comparison.scorers.len() > 1 {
            label #scorer-choice hidden {
                "Scored by "
                select #scorer {
                    @for (index, scorer) in comparison.scorers.iter().enumerate() { option value=(index) { (scorer.name) } }
                }
            }
        }
    }
}

fn how_to_read(comparison: &Comparison, extras: &Extras) -> Markup {
    html! {
        p {
            "Every model generated the same prompts from the same starting noise. The " b { "win rate" } " is the fraction of \
             samples in which an image scores higher than that of " b { (comparison.baseline()) } " for the same prompt and \
             seed, ties counting half; 50% means no difference. The whisker is the 95% Wilson interval: only when all of it \
             lies right of the middle line is a model shown to be better " em { "by this scorer" } ". A scorer is a model of \
             what people prefer, not people: look at the images too."
        }
        @for scorer in &comparison.scorers {
            @if !scorer.about.is_empty() { p { b { (scorer.name) } ": " (scorer.about) "." } }
        }
        (extras.reading)
    }
}

fn settings(comparison: &Comparison) -> Markup {
    html! {
        (facts(&comparison.settings))
        @for (index, model) in comparison.models.iter().enumerate() {
            h3 { (comparison.label(index)) }
            (facts([&Fact::new("what", &model.what)].into_iter().chain(&model.settings)))
        }
    }
}
