//! Win rates and scores: cards, matrix, tables, distributions.

use tastemaker_math::intervals::Interval;
use tastemaker_pages::charts::{histogram, rate_bar};
use tastemaker_pages::format::{percent, plain, signed, tenths};
use tastemaker_pages::{Markup, color, column_heads, html, nothing, number, table};

use super::model::{Comparison, Extras};
use super::results::Results;
use crate::winrate::{Verdict, WinRate};

/// How every model fares against the baseline, at a glance.
pub(super) fn cards(comparison: &Comparison, results: &Results, extras: &Extras) -> Markup {
    let card = |scorer: usize, model: usize| {
        let rate = results.overall(scorer, model, 0)?;
        let (verdict, Interval { estimate, low, high }) = (rate.verdict(), rate.rate);
        let than = if verdict == Verdict::Unclear {
            String::new()
        } else {
            format!(" than {}", comparison.baseline())
        };
        Some(html! {
            li class={ "card " (color(model)) } {
                h3 { (comparison.label(model)) }
                p.big { (percent(estimate)) }
                p class={ "verdict " (verdict.class()) } { (verdict.word()) (than) }
                (rate_bar(&rate.rate, &color(model)))
                p.small {
                    (percent(low)) "\u{2013}" (percent(high)) " (95%)" br; (won(&rate))
                    @if let Some(line) = extras.cards.get(model) { br; (line) }
                }
            }
        })
    };
    by_scorer(comparison, |scorer| {
        html! { ul.cards { @for model in 1..comparison.models.len() { (card(scorer, model).unwrap_or_default()) } } }
    })
}

/// Every model against every other.
pub(super) fn matrix(comparison: &Comparison, results: &Results) -> Markup {
    let n = comparison.models.len();
    let cell = |rate: WinRate| {
        let is_sure = if rate.verdict() == Verdict::Unclear { 0.35 } else { 1.0 };
        let Interval { estimate, low, high } = rate.rate;
        let strength = ((estimate - 0.5).abs() * 2.0 * is_sure * 62.0).round();
        let class = if estimate >= 0.5 { "up" } else { "down" };
        html! {
            td class=(class) style={ "--p:" (strength) "%" } title=(won(&rate)) {
                b { (tenths(estimate)) } br; i { (tenths(low)) "\u{2013}" (tenths(high)) }
            }
        }
    };
    let heads = std::iter::once("").chain(comparison.models.iter().map(|model| model.name.as_str()));
    let heads = column_heads(&heads.collect::<Vec<_>>());
    let grid = |scorer| {
        html! {
            div.scroll { table.matrix style=(heads) {
                thead { tr { td {} @for model in 0..n { th scope="col" { (comparison.label(model)) } } } }
                tbody {
                    @for a in 0..n {
                        tr {
                            th scope="row" { (comparison.label(a)) }
                            @for b in 0..n { (results.overall(scorer, a, b).map_or_else(nothing, cell)) }
                        }
                    }
                }
            } }
        }
    };
    html! {
        p {
            "How often the row beats the column, with the 95% Wilson interval. Strong color: the whole interval lies on one \
             side of one half."
        }
        (by_scorer(comparison, grid))
    }
}

/// Scores of every model by every scorer.
pub(super) fn scores(comparison: &Comparison, results: &Results) -> Markup {
    let rows = |scorer: usize| {
        let digits = comparison.decimals(scorer);
        let show = |bounds: &Interval, number: fn(f64, usize) -> String| {
            let [value, low, high] =
                [bounds.estimate, bounds.low, bounds.high].map(|value| number(value, digits));
            html! { td { (value) " " i { (low) " to " (high) } } }
        };
        let row = move |model: usize| {
            let score = results.score(scorer, model, results.focus)?;
            let rate = results.overall(scorer, model, 0);
            Some(html! {
                th scope="row" { (comparison.label(model)) }
                (show(&score.mean, plain)) (number(plain(score.median, digits), None))
                @match rate {
                    Some(rate) => { (show(&rate.mean_difference, signed)) (show(&rate.median_difference, signed)) }
                    None => { (nothing()) (nothing()) }
                }
            })
        };
        let heads = ["Model", "mean score", "median score", "mean difference", "median difference"];
        table("narrow", &heads, (0..comparison.models.len()).filter_map(row))
    };
    html! {
        p {
            "Differences are from " b { (comparison.baseline()) } " for the same prompt and seed, averaged over the images of \
             a prompt first; the smaller numbers are 95% bootstrap intervals over prompts."
        }
        (by_scorer(comparison, rows))
    }
}

/// Win rates by category.
pub(super) fn categories(comparison: &Comparison, results: &Results) -> Markup {
    let others = 1..comparison.models.len();
    let all = comparison.focus.is_none().then(|| (None, "All prompts", comparison.n_prompts()));
    let named =
        results.categories.iter().enumerate().map(|(index, (name, n))| (Some(index), name.as_str(), *n));
    let rows: Vec<(Option<usize>, &str, usize)> = all.into_iter().chain(named).collect();
    let heads: Vec<&str> = ["Category", "prompts"]
        .into_iter()
        .chain(others.clone().map(|model| comparison.models[model].name.as_str()))
        .collect();
    let block = |scorer: usize| {
        let row = |(category, name, n): &(Option<usize>, &str, usize)| {
            html! {
                th scope="row" { (name) } (number(n.to_string(), None))
                @for model in others.clone() {
                    @match results.win_rate(scorer, model, 0, *category) {
                        Some(rate) => (win_cell(&rate, &color(model))),
                        None => (nothing()),
                    }
                }
            }
        };
        table("narrow", &heads, rows.iter().map(row))
    };
    html! {
        p {
            "Win rates against " b { (comparison.baseline()) } ". About one interval of twenty misses the truth, so a single \
             category that stands out is a question, not an answer."
        }
        (by_scorer(comparison, block))
    }
}

/// A cell with a win rate as a bar.
fn win_cell(rate: &WinRate, color: &str) -> Markup {
    let Interval { estimate, low, high } = rate.rate;
    html! {
        td.win title=(won(rate)) {
            (rate_bar(&rate.rate, color)) span { b { (tenths(estimate)) } " " (tenths(low)) "\u{2013}" (tenths(high)) }
        }
    }
}

/// How far the scorers agree.
pub(super) fn agreement(comparison: &Comparison, results: &Results) -> Markup {
    let n = comparison.scorers.len();
    let heads: Vec<&str> = std::iter::once("Model")
        .chain(comparison.scorers.iter().map(|scorer| scorer.name.as_str()))
        .chain(["all alike"])
        .collect();
    let row = |model: usize| {
        html! {
            th scope="row" { (comparison.label(model)) }
            @for rate in (0..n).filter_map(|scorer| results.overall(scorer, model, 0)) {
                td class=(rate.verdict().class()) { (tenths(rate.rate.estimate)) br; i { (rate.verdict().word()) } }
            }
            (number(results.agreement(model, 0).map_or(String::new(), |agreement| tenths(agreement.all)), None))
        }
    };
    html! {
        p {
            "Win rates against " b { (comparison.baseline()) } " by every scorer, and the fraction of samples on which all of \
             them agree. A gain that a single scorer sees may be that scorer's weakness."
        }
        (table("narrow", &heads, (1..comparison.models.len()).map(row)))
    }
}

/// Scores of every model, and differences from the baseline, by every scorer.
pub(super) fn distributions(comparison: &Comparison, results: &Results) -> Markup {
    let (n, samples, baseline) = (comparison.models.len(), comparison.focused(), comparison.baseline());
    let block = |scorer: usize| {
        let of = |model: usize, value: &dyn Fn(usize) -> f64| {
            (color(model), samples.iter().map(|&sample| value(sample)).collect::<Vec<f64>>())
        };
        let scores: Vec<_> =
            (0..n).map(|model| of(model, &|sample| comparison.scores[scorer][model][sample])).collect();
        let gains: Vec<_> =
            (1..n).map(|model| of(model, &|sample| comparison.gain(scorer, model, sample))).collect();
        let mean = |model| Some((color(model), results.score(scorer, model, results.focus)?.mean.estimate));
        let means: Vec<_> = (0..n).filter_map(mean).collect();
        html! {
            ul.legend { @for model in 0..n { li { (comparison.label(model)) } } }
            div.columns.many[n > 3] {
                (histogram(&format!("Scores, {}", comparison.scorers[scorer].unit), &scores, &means, None))
                (histogram(&format!("Difference from {baseline}"), &gains, &[], Some(0.0)))
            }
        }
    };
    html! {
        p {
            "Left: the scores of all images; a tick on the axis is a model's mean. Right: the score minus that of "
            b { (baseline) } " for the same prompt and seed; what lies right of the line are wins. The outermost bars take in \
            what lies beyond."
        }
        (by_scorer(comparison, block))
    }
}

/// A block for each scorer; the script shows that of the scorer that is chosen.
fn by_scorer(comparison: &Comparison, block: impl Fn(usize) -> Markup) -> Markup {
    html! {
        @for (index, scorer) in comparison.scorers.iter().enumerate() {
            div.by-scorer data-scorer=(index) {
                @if comparison.scorers.len() > 1 { h3 { (scorer.name) } }
                (block(index))
            }
        }
    }
}

fn won(rate: &WinRate) -> String {
    format!("{} won, {} tied, {} lost", rate.wins, rate.ties, rate.losses)
}
