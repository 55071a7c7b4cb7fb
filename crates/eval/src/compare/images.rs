//! Images side by side.

use tastemaker_pages::format::{plain, signed};
use tastemaker_pages::{Markup, RowImage, html, image_row, tag};

use super::model::{Choice, Comparison, ShownSample};
use super::results::Results;

/// Which of the samples with these score differences to show, at most `n`: half spread evenly over all, a quarter where the
/// difference is greatest, a quarter where it is least. In the order of the samples.
pub fn choose(differences: &[f64], n: usize) -> Vec<(usize, Choice)> {
    let n_samples = differences.len();
    if n >= n_samples {
        return (0..n_samples).map(|sample| (sample, Choice::Spread)).collect();
    }
    let n_extreme = n / 4;
    let n_spread = n - 2 * n_extreme;
    let mut chosen: Vec<(usize, Choice)> =
        (0..n_spread).map(|k| (k * n_samples / n_spread, Choice::Spread)).collect();
    let mut ranked: Vec<usize> = (0..n_samples).collect();
    ranked.sort_by(|&a, &b| differences[b].total_cmp(&differences[a]));
    ranked.retain(|sample| chosen.iter().all(|(spread, _)| spread != sample));
    chosen.extend(ranked.iter().take(n_extreme).map(|&sample| (sample, Choice::Gain)));
    chosen.extend(ranked.iter().skip(n_extreme).rev().take(n_extreme).map(|&sample| (sample, Choice::Loss)));
    chosen.sort_unstable();
    chosen
}

/// The images and what chooses among them.
pub(super) fn section(comparison: &Comparison, results: &Results) -> Markup {
    let n = comparison.models.len() + usize::from(comparison.shown.iter().any(|shown| shown.real.is_some()));
    html! {
        p {
            (how_chosen(comparison)) " Models start from the same noise. Select an image to enlarge it and to flip between \
             models."
        }
        (controls(comparison, results))
        div.exhibits style={ "--n:" (n) } { @for shown in &comparison.shown { (exhibit(comparison, shown)) } }
        p #none hidden { "No image fits." }
    }
}

fn how_chosen(comparison: &Comparison) -> Markup {
    let (shown, all) = (comparison.shown.len(), comparison.samples.len());
    let last = &comparison.models[comparison.models.len() - 1].name;
    html! {
        @if shown == all {
            "All " (all) " images of each model."
        } @else {
            (shown) " of " (all) " images of each model, sampled evenly over the prompts"
            @if has_extremes(comparison) {
                ", and those where " b { (last) } " gains and loses most on " b { (comparison.baseline()) } " by "
                (comparison.scorers[0].name) ", marked so"
            } "."
        }
    }
}

fn has_extremes(comparison: &Comparison) -> bool {
    comparison.shown.iter().any(|shown| shown.choice != Choice::Spread)
}

fn controls(comparison: &Comparison, results: &Results) -> Markup {
    let baseline = comparison.baseline();
    html! {
        form #controls hidden {
            label { "Search " input #search type="search" placeholder="words of a prompt"; }
            @if !results.categories.is_empty() {
                label {
                    "Category "
                    select #category {
                        option value="" { "all" }
                        @for (name, _) in &results.categories { option value=(name) { (name) } }
                    }
                }
            }
            label {
                "Order "
                select #order {
                    option value="" { "as listed" }
                    @for (index, model) in comparison.models.iter().enumerate().skip(1) {
                        option value={ (index) " -1" } { (model.name) " gains most on " (baseline) }
                        option value={ (index) " 1" } { (model.name) " loses most to " (baseline) }
                    }
                }
            }
            @if has_extremes(comparison) {
                label {
                    "Show "
                    select #choice {
                        option value="" { "all" } option value="spread" { "evenly sampled" }
                        option value="gain" { "gains" } option value="loss" { "losses" }
                    }
                }
            }
            output #count {}
        }
    }
}

fn exhibit(comparison: &Comparison, shown: &ShownSample) -> Markup {
    let sample = &comparison.samples[shown.sample];
    let prompt = &comparison.prompts[sample.prompt];
    let category = prompt.category.as_deref().unwrap_or_default();
    let (choice, mark) = match shown.choice {
        Choice::Spread => ("spread", None),
        Choice::Gain => ("gain", Some(tag("better", "great gain"))),
        Choice::Loss => ("loss", Some(tag("worse", "great loss"))),
    };
    let scores: Vec<String> = comparison
        .scores
        .iter()
        .map(|by| by.iter().map(|scores| scores[shown.sample].to_string()).collect::<Vec<_>>().join(" "))
        .collect();
    let real = shown.real.as_ref().map(|image| RowImage {
        name: "real",
        alt: format!("real image: {}", prompt.text),
        image: Some(image),
        caption: html! { "real" },
    });
    let images = comparison.models.iter().zip(&shown.images).enumerate().map(|(index, (model, image))| RowImage {
        name: &model.name,
        alt: format!("{}: {}", model.name, prompt.text),
        image: Some(image),
        caption: html! {
            (comparison.label(index))
            @for scorer in 0..comparison.scorers.len() { (score(comparison, scorer, index, shown.sample)) }
        },
    });
    html! {
        article.exhibit data-category=(category) data-choice=(choice) data-scores=(scores.join(";")) {
            h3 { (prompt.text) }
            p.tags {
                @if !category.is_empty() { (tag("", category)) }
                (tag("", &format!("seed {}", sample.seed)))
                @if let Some(mark) = mark { (mark) }
            }
            (image_row(real.into_iter().chain(images)))
        }
    }
}

fn score(comparison: &Comparison, scorer: usize, model: usize, sample: usize) -> Markup {
    let of = |model: usize| comparison.scores[scorer][model][sample];
    let digits = comparison.decimals(scorer);
    let is_best = (0..comparison.models.len()).all(|other| other == model || of(other) < of(model));
    html! {
        span.score.best[is_best] data-scorer=(scorer) {
            b { (plain(of(model), digits)) }
            @if model > 0 { " " i { (signed(comparison.gain(scorer, model, sample), digits)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_are_spread_and_the_rest_are_extremes() {
        let differences: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 40)).collect();
        let chosen = choose(&differences, 8);
        let of = |choice: Choice| -> Vec<usize> {
            chosen.iter().filter(|(_, why)| *why == choice).map(|(sample, _)| *sample).collect()
        };
        assert_eq!(of(Choice::Spread), [0, 10, 20, 30]);
        let value =
            |samples: Vec<usize>| samples.iter().map(|&sample| differences[sample]).collect::<Vec<_>>();
        assert_eq!((value(of(Choice::Gain)), value(of(Choice::Loss))), (vec![39.0, 38.0], vec![2.0, 1.0]));
        assert!(chosen.is_sorted() && chosen.len() == 8);
    }

    #[test]
    fn few_samples_are_all_shown() {
        assert_eq!(choose(&[1.0, 2.0, 3.0], 8).len(), 3);
        assert_eq!(choose(&[1.0, 2.0, 3.0, 4.0], 1), [(0, Choice::Spread)]);
        assert_eq!(choose(&[1.0], 0), []);
    }
}
