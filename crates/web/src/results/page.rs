//! Results as a page like that of a comparison, with people in the place of scorers.

use std::collections::HashMap;
use std::path::Path;

use tastemaker_data::set::{decode, read_encoded};
use tastemaker_math::agreement::Votes;
use tastemaker_pages::charts::rate_bar;
use tastemaker_pages::format::{count, percent, plain, tenths};
use tastemaker_pages::{
    Fact, Markup, Page, RowImage, Section, Thumbnail, color, facts, html, image_row, number, table, tag,
};

use super::{Counted, Matrix, ModelComparison, Of, QuestionResults, Results, VoterResults, counted};
use crate::vote::Record;

/// Renders results as one HTML file, with so many pairs of images at most. Equal records give equal bytes.
pub fn page(record: &Record, results: &Results, n_images: usize) -> String {
    let several = results.questions.iter().any(|question| categories(question).next().is_some());
    let images = images(record, results, n_images);
    let section = |wanted: bool, id, heading, body: &dyn Fn() -> Markup| {
        wanted.then(|| Section::new(id, heading, body()))
    };
    let sections = [
        section(!images.is_empty(), "images", "Images", &|| exhibits(&images)),
        section(
            true,
            "win-rates",
            "Win rates",
            &|| html! { @for question in &results.questions { (cards(question)) } },
        ),
        section(true, "reading", "How to read this page", &|| reading(results)),
        section(true, "numbers", "Numbers", &|| numbers(results)),
        section(several, "categories", "Categories", &|| by_category(results)),
        section(true, "agreement", "Agreement", &|| agreement(results)),
        section(true, "voters", "Voters", &|| voters(results)),
        section(true, "settings", "Settings", &|| settings(results)),
    ];
    let n_voters = results.voters.iter().filter(|voter| voter.votes > 0).count();
    let voters = if n_voters == 1 { "one person".to_owned() } else { format!("{n_voters} people") };
    let on = results.category.as_ref().map_or(String::new(), |category| format!(" \u{b7} {category}"));
    Page {
        eyebrow: format!(
            "tastemaker vote \u{b7} {}{on} \u{b7} {} pairs, {} votes of {voters}",
            results.study,
            count(results.n_items as u64),
            count(results.n_votes as u64)
        ),
        heading: "What people prefer".into(),
        lede: html! { (headline(results)) },
        controls: Markup::default(),
        sections: sections.into_iter().flatten().collect(),
    }
    .render()
}

fn overall(question: &QuestionResults) -> impl Iterator<Item = &ModelComparison> {
    question.comparisons.iter().filter(|comparison| comparison.category.is_none())
}

fn categories(question: &QuestionResults) -> impl Iterator<Item = &ModelComparison> {
    question.comparisons.iter().filter(|comparison| comparison.category.is_some())
}

/// What the votes show, in words.
fn verdict(comparison: &ModelComparison) -> (&'static str, &'static str) {
    match comparison.win_rate {
        rate if rate.low > 0.5 => ("preferred", "better"),
        rate if rate.high < 0.5 => ("not preferred", "worse"),
        _ => ("no clear difference", "unclear"),
    }
}

fn headline(results: &Results) -> String {
    let Some((question, first)) = results.questions.first().and_then(|one| Some((one, overall(one).next()?)))
    else {
        return "Nobody has voted yet.".into();
    };
    let ModelComparison { a, b, .. } = first;
    let said = match verdict(first).1 {
        "better" => format!("People prefer {a} to {b}"),
        "worse" => format!("People prefer {b} to {a}"),
        _ => format!("People show no clear preference between {a} and {b}"),
    };
    format!("{said}: {} of {} pairs ({}).", percent(first.win_rate.rate), first.n, question.question.key)
}

fn cards(question: &QuestionResults) -> Markup {
    html! {
        div.by-scorer {
            h3 { (question.question.text) }
            ul.cards {
                @for (index, comparison) in overall(question).enumerate() {
                    @let (words, class) = verdict(comparison);
                    li class={ "card " (color(index + 1)) } {
                        h3 { (comparison.a) " " i { "against " (comparison.b) } }
                        p.big { (percent(comparison.win_rate.rate)) }
                        p class={ "verdict " (class) } { (words) }
                        (rate_bar(&comparison.win_rate.interval(), ""))
                        p.small {
                            (comparison.wins) " won, " (comparison.ties) " tied, " (comparison.losses) " lost of "
                            (comparison.n) " pairs"
                        }
                    }
                }
            }
            @if let Some(matrix) = Matrix::of(question) { (square(&matrix)) }
        }
    }
}

/// Each row's model against each column's.
fn square(matrix: &Matrix<'_>) -> Markup {
    let heads: Vec<&str> =
        ["Win rate of"].into_iter().chain(matrix.models.iter().copied()).chain(["mean"]).collect();
    let interval = |rate: &super::Rate| format!("{} to {}", tenths(rate.low), tenths(rate.high));
    let rows = matrix.rows().map(|(name, rates, mean)| {
        html! {
            th scope="row" { (name) }
            @for rate in rates {
                @match rate {
                    Some(rate) => (number(tenths(rate.rate), Some(interval(rate)))),
                    None => (tastemaker_pages::nothing()),
                }
            }
            (number(mean.map_or("\u{2013}".to_owned(), tenths), None))
        }
    });
    html! {
        h3 { "Every model against every other" }
        (table("", &heads, rows))
    }
}

fn reading(results: &Results) -> Markup {
    let wanted = results.settings.votes_per_item;
    html! {
        p {
            "People saw the two images of a pair side by side, without names, on sides that changed by chance. A pair goes to the answer "
            "that most of its voters gave; where there is none, it is a tie. Up to " (wanted)
            @if wanted == 1 { " person was" } @else { " people were" }
            " asked about each pair. The " b { "win rate" } " is the fraction of pairs won, ties counting half. The whisker is the 95% "
            "Wilson interval over pairs; the numbers below also have a bootstrap interval over prompts, which is wider where a prompt has "
            "several pairs."
        }
        p {
            b { "Kappa and alpha" } " are 1 where all voters agree, and 0 where they agree as often as by drawing lots. Taste differs: values "
            "from 0.2 to 0.5 are usual."
        }
    }
}

fn numbers(results: &Results) -> Markup {
    let heads = ["Question", "Models", "Pairs", "Won", "Tied", "Lost", "Win rate", "Over prompts", "Votes"];
    let rows =
        results.questions.iter().flat_map(|question| overall(question).map(move |one| (question, one)));
    let rows = rows.map(|(question, one)| {
        let ModelComparison { a, b, n, wins, ties, losses, win_rate, by_prompt, votes, .. } = one;
        let interval = |rate: &super::Rate| format!("{} to {}", tenths(rate.low), tenths(rate.high));
        html! {
            th scope="row" { (question.question.key) }
            td { (a) " " i { "against " (b) } }
            (number(n.to_string(), None)) (number(wins.to_string(), None)) (number(ties.to_string(), None))
            (number(losses.to_string(), None))
            (number(tenths(win_rate.rate), Some(interval(win_rate))))
            (number(tenths(by_prompt.rate), Some(interval(by_prompt))))
            (number(format!("{} : {} : {}", votes[0], votes[1], votes[2]), None))
        }
    });
    table("", &heads, rows)
}

fn by_category(results: &Results) -> Markup {
    let rows =
        results.questions.iter().flat_map(|question| categories(question).map(move |one| (question, one)));
    let rows = rows.map(|(question, one)| {
        html! {
            th scope="row" { (one.category.as_deref().unwrap_or_default()) }
            td { (question.question.key) }
            td { (one.a) " " i { "against " (one.b) } }
            (number(one.n.to_string(), None))
            td.win { b { (percent(one.win_rate.rate)) } (rate_bar(&one.win_rate.interval(), "c1")) }
        }
    });
    table("stacks", &["Category", "Question", "Models", "Pairs", "Win rate"], rows)
}

fn optional(value: Option<f64>) -> Markup {
    number(value.map_or("\u{2013}".to_owned(), |value| plain(value, 2)), None)
}

fn agreement(results: &Results) -> Markup {
    let heads = [
        "Question",
        "Pairs with two votes",
        "Unanimous",
        "Fleiss' kappa",
        "Alpha, nominal",
        "Alpha, ordinal",
    ];
    let rows = results.questions.iter().map(|question| {
        let agreement = &question.agreement;
        html! {
            th scope="row" { (question.question.key) }
            (number(agreement.n.to_string(), None))
            (number(agreement.unanimous.map_or("\u{2013}".to_owned(), percent), None))
            (optional(agreement.fleiss_kappa)) (optional(agreement.krippendorff_nominal))
            (optional(agreement.krippendorff_ordinal))
        }
    });
    let scorers =
        results.questions.iter().flat_map(|question| question.scorers.iter().map(move |one| (question, one)));
    let scored = scorers.clone().next().is_some();
    let scorers = scorers.map(|(question, one)| {
        html! {
            th scope="row" { (one.scorer) }
            td { (question.question.key) }
            (number(one.n.to_string(), None))
            td.win { b { (percent(one.fraction.rate)) } (rate_bar(&one.fraction.interval(), "c1")) }
        }
    });
    html! {
        h3 { "Among people" }
        (table("", &heads, rows))
        @if scored {
            h3 { "Scorers and people" }
            p.small { "How often a scorer prefers the image that most people prefer, of pairs that are no tie. Half is luck." }
            (table("", &["Scorer", "Question", "Pairs", "As people"], scorers))
        }
    }
}

fn of(of: Of) -> Markup {
    match of.fraction() {
        Some(fraction) => number(percent(fraction), Some(format!("of {}", of.of))),
        None => tastemaker_pages::nothing(),
    }
}

fn voters(results: &Results) -> Markup {
    let heads = [
        "Voter",
        "Votes",
        "Skipped",
        "Seconds each",
        "As the others",
        "The same again",
        "Known answers",
        "Left side",
    ];
    let rows = results.voters.iter().map(|voter| {
        let VoterResults {
            name, votes, skipped, median_seconds, with_others, consistent, known, left, ..
        } = voter;
        html! {
            th scope="row" {
                (name)
                @if voter.below_threshold { " " (tag("warning", "below the threshold")) }
            }
            (number(votes.to_string(), None)) (number(skipped.to_string(), None))
            (number(median_seconds.map_or("\u{2013}".to_owned(), |seconds| plain(seconds, 1)), None))
            (of(*with_others)) (of(*consistent)) (of(*known)) (of(*left))
        }
    });
    html! {
        p.small {
            "As the others: how often a vote is the answer that most of the other voters of the pair gave. No voter is left out for "
            "being unlike others."
        }
        (table("stacks", &heads, rows))
    }
}

/// A pair of images with what was said.
struct Shown {
    prompt: String,
    category: String,
    names: [String; 2],
    thumbnails: [Option<Thumbnail>; 2],
    votes: Vec<(String, Votes)>,
}

/// Pairs spread evenly over those with votes, whose images are files.
fn images(record: &Record, results: &Results, n: usize) -> Vec<Shown> {
    let counted: Counted = counted(record);
    let mut voted: Vec<u32> = counted.keys().map(|(item, _)| *item).collect();
    voted.sort_unstable();
    voted.dedup();
    let of_prompt = |item: u32| &record.prompts[record.items[item as usize].prompt as usize];
    voted.retain(|&item| results.category.is_none() || of_prompt(item).category == results.category);
    voted.retain(|&item| record.places[item as usize].iter().all(|place| Path::new(place).is_file()));
    let (total, n) = (voted.len(), n.min(voted.len()));
    let chosen = (0..n).map(|k| voted[k * total / n.max(1)]);
    let mut thumbnails: HashMap<String, Option<Thumbnail>> = HashMap::new();
    let mut thumbnail = |place: &String| {
        let made = || Thumbnail::new(&decode(&read_encoded(Path::new(place)).ok()?).ok()?).ok();
        thumbnails.entry(place.clone()).or_insert_with(made).clone()
    };
    let shown = chosen.map(|item| {
        let prompt = of_prompt(item);
        let questions = results.questions.iter().zip(0..);
        let votes = questions.filter_map(|(question, number)| {
            Some((question.question.key.clone(), counted.get(&(item, number))?.0))
        });
        Shown {
            prompt: prompt.text.clone(),
            category: prompt.category.clone().unwrap_or_default(),
            names: record.items[item as usize].models.map(|model| record.models[model as usize].clone()),
            thumbnails: record.places[item as usize].each_ref().map(&mut thumbnail),
            votes: votes.collect(),
        }
    });
    shown.collect()
}

fn exhibits(images: &[Shown]) -> Markup {
    let several = images.iter().any(|shown| shown.votes.len() > 1);
    html! {
        p { (images.len()) " pairs, sampled evenly, with their votes. Select an image to enlarge it and to flip between the two." }
        div.exhibits style="--n:2" {
            @for shown in images {
                article.exhibit data-category=(shown.category) {
                    h3 { (shown.prompt) }
                    p.tags { @if !shown.category.is_empty() { (tag("", &shown.category)) } }
                    (image_row((0..2).map(|side| RowImage {
                        name: &shown.names[side],
                        alt: format!("{}: {}", shown.names[side], shown.prompt),
                        image: shown.thumbnails[side].as_ref(),
                        caption: html! {
                            (tastemaker_pages::named(&color(1 - side), &shown.names[side]))
                            @for (key, votes) in &shown.votes {
                                @let [mine, other] = if side == 0 { [votes.first, votes.second] } else { [votes.second, votes.first] };
                                span.score.best[mine > other.max(votes.tie)] {
                                    b { (mine) } " " i { "of " (votes.n()) @if several { ", " (key) } }
                                }
                            }
                        },
                    })))
                }
            }
        }
    }
}

fn settings(results: &Results) -> Markup {
    let settings = &results.settings;
    let mut list = vec![
        Fact::new("study", &results.study),
        Fact::new("votes per pair", settings.votes_per_item),
        Fact::new("repeated pairs", percent(settings.repeats)),
        Fact::new("threshold for known answers", percent(settings.gold_threshold)),
        Fact::new("seed", settings.seed),
    ];
    list.extend(settings.questions.iter().map(|question| Fact::new(&question.key, &question.text)));
    facts(&list)
}
