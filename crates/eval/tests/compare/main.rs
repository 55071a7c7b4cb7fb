//! A comparison's results, page and summary, over made-up scores.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod made_up;

use made_up::{comparison, count};
use serde_json::Value;
use tastemaker_eval::compare::{Choice, Comparison, Extras, Results, headline, page, summary};

fn main_element(html: &str) -> String {
    let (start, end) = (html.find("<main>").unwrap(), html.find("</main>").unwrap());
    // A line for each element that begins one, so that a change is easy to see.
    let breaks = ["section", "h2", "h3", "p", "tr", "li", "article", "figure", "div", "dl"];
    breaks.iter().fold(html[start..end].to_owned(), |text, name| {
        text.replace(&format!("<{name}>"), &format!("\n<{name}>"))
            .replace(&format!("<{name} "), &format!("\n<{name} "))
    })
}

fn page_of(comparison: &Comparison) -> String {
    page(comparison, &Results::of(comparison).unwrap(), &Extras::none("compare"))
}

#[test]
fn the_markup_for_two_is_as_reviewed() {
    insta::assert_snapshot!(main_element(&page_of(&comparison(2, 1, 3, 2))));
}

#[test]
fn the_markup_of_results_for_three_is_as_reviewed() {
    let html = page_of(&comparison(3, 2, 12, 0));
    let main = main_element(&html);
    // Histograms are long, and reviewed above.
    let (before, after) =
        (main.find("<section id=\"distributions\">"), main.find("<section id=\"settings\">"));
    insta::assert_snapshot!(format!("{}...\n{}", &main[..before.unwrap()], &main[after.unwrap()..]));
}

#[test]
fn the_summary_is_as_reviewed() {
    let comparison = comparison(2, 2, 6, 0);
    insta::assert_snapshot!(
        summary(&comparison, &Results::of(&comparison).unwrap(), &Extras::none("compare")).unwrap()
    );
}

#[test]
fn equal_comparisons_give_equal_bytes() {
    assert_eq!(page_of(&comparison(3, 2, 6, 4)), page_of(&comparison(3, 2, 6, 4)));
}

#[test]
fn images_come_before_figures_and_every_scorer_says_what_it_measures() {
    let html = page_of(&comparison(3, 2, 6, 4));
    let sections: Vec<&str> =
        html.split("<section id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(sections[..2], ["images", "win-rates"], "{sections:?}");
    for said in ["<b>one-score</b>: what one-score says.", "<b>other-score</b>: what other-score says."] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let html = page_of(&comparison(3, 2, 6, 4));
    for asking in ["http:", "https:", "//", "url(", "@import", "<link", "src=\"/", "fetch("] {
        let found = html.match_indices(asking).map(|(at, _)| &html[at..(at + 60).min(html.len())]);
        // Two slashes alone start a comment in the script.
        let found: Vec<&str> = found.filter(|text| !text.starts_with("// ")).collect();
        assert!(found.is_empty(), "{asking}: {found:?}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn names_and_prompts_cannot_become_markup() {
    let html = page_of(&comparison(3, 2, 6, 12));
    assert!(html.contains("tuned &lt;&amp;&gt;") && !html.contains("tuned <&>"));
    assert!(html.contains("a &quot;fox&quot; &amp; &lt;b&gt;a hen&lt;/b&gt;") && !html.contains("<b>a hen"));
}

#[test]
fn both_directions_of_a_win_rate_add_up_to_one() {
    let comparison = comparison(3, 2, 12, 0);
    let results = Results::of(&comparison).unwrap();
    for scorer in 0..2 {
        for category in [None, Some(0), Some(1)] {
            let (there, back) = (
                results.win_rate(scorer, 2, 1, category).unwrap(),
                results.win_rate(scorer, 1, 2, category).unwrap(),
            );
            assert!(
                (there.rate.estimate + back.rate.estimate - 1.0).abs() < 1e-12 && there.wins == back.losses
            );
        }
        assert_eq!(results.win_rate(scorer, 1, 1, None), None);
    }
}

#[test]
fn categories_take_the_samples_of_their_prompts_apart() {
    let comparison = comparison(2, 1, 9, 0);
    let results = Results::of(&comparison).unwrap();
    assert_eq!(results.categories, [("animals".to_owned(), 3), ("scenes".to_owned(), 6)]);
    let rate = |category| results.win_rate(0, 1, 0, category).unwrap();
    let (all, parts) = (rate(None), [rate(Some(0)), rate(Some(1))]);
    assert_eq!((all.n, all.n), (18, parts[0].n + parts[1].n));
    assert_eq!(all.wins, parts[0].wins + parts[1].wins);
    assert_eq!(all.ties, parts[0].ties + parts[1].ties);
}

#[test]
fn a_single_category_is_none() {
    let mut comparison = comparison(2, 1, 4, 0);
    comparison.prompts.iter_mut().for_each(|prompt| prompt.category = Some("all".into()));
    assert!(Results::of(&comparison).unwrap().categories.is_empty());
    comparison.prompts[1].category = None;
    assert_eq!(Results::of(&comparison).unwrap().categories, [("all".to_owned(), 3)]);
}

#[test]
fn equal_images_tie_by_every_scorer() {
    let mut comparison = comparison(2, 2, 6, 0);
    comparison.scores.iter_mut().for_each(|scores| scores[1] = scores[0].clone());
    let results = Results::of(&comparison).unwrap();
    let rate = results.win_rate(1, 1, 0, None).unwrap();
    assert_eq!((rate.wins, rate.ties, rate.losses, rate.rate.estimate), (0, 12, 0, 0.5));
    assert_eq!(results.agreement(0, 1).unwrap().all, 1.0);
    assert_eq!(
        headline(&comparison, &results),
        "tuned <&> and base: no clear difference by all 2 scorers with 12 samples; about 100 are needed to see 10 points."
    );
}

#[test]
fn scorers_that_decide_alike_are_counted() {
    let mut comparison = comparison(2, 2, 2, 0);
    let zero = vec![0.0; 4];
    comparison.scores =
        vec![vec![zero.clone(), vec![1.0, 1.0, -1.0, 0.0]], vec![zero, vec![2.0, -2.0, -2.0, 0.0]]];
    let results = Results::of(&comparison).unwrap();
    let agreement = results.agreement(1, 0).unwrap();
    assert_eq!((agreement.all, agreement.fractions[0][1], agreement.fractions[1][1]), (0.75, 0.75, 1.0));
}

#[test]
fn the_headline_says_who_wins() {
    let said = |n_models, n_scorers| {
        let comparison = comparison(n_models, n_scorers, 60, 0);
        headline(&comparison, &Results::of(&comparison).unwrap())
    };
    assert_eq!(said(2, 1), "tuned <&> beats base.");
    assert_eq!(said(2, 2), "tuned <&> beats base by all 2 scorers.");
    assert_eq!(
        said(3, 2),
        "One of 2 beats base by every scorer; one loses to it. tuned <&> has the highest mean score."
    );
}

#[test]
fn shown_images_say_how_they_were_chosen() {
    let all = comparison(2, 1, 3, 99);
    assert!(page_of(&all).contains("All 6 images of each model."));
    let some = comparison(2, 1, 20, 8);
    assert_eq!([Choice::Spread, Choice::Gain, Choice::Loss].map(|choice| count(&some, choice)), [4, 2, 2]);
    let html = page_of(&some);
    assert!(html.contains("8 of 40 images of each model, sampled evenly over the prompts, and those where"));
    assert_eq!(html.matches("great gain").count(), 2);
}

#[test]
fn every_summary_field_is_described_in_the_reference() {
    let reference =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/summary.md"))
            .unwrap();
    let reference = &reference[reference.find("## Of `compare`").unwrap()..];
    let comparison = comparison(2, 2, 6, 0);
    let summary = summary(&comparison, &Results::of(&comparison).unwrap(), &Extras::none("compare")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let rows = ["models", "scorers", "scores", "win_rates", "agreement"].map(|list| &summary[list][0]);
    for field in std::iter::once(&summary).chain(rows).flat_map(|part| part.as_object().unwrap().keys()) {
        assert!(reference.contains(&format!("`{field}`")), "{field} is not described");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let refusal = |damage: fn(&mut Comparison)| {
        let mut comparison = comparison(2, 1, 3, 0);
        damage(&mut comparison);
        Results::of(&comparison).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refusal(|comparison| comparison.models[1].name = "base".into()),
        @r#"report is inconsistent: two models are named "base""#);
    insta::assert_snapshot!(refusal(|comparison| { comparison.scores[0][1].pop(); }),
        @"report is inconsistent: scores of other scorers, models or images than there are");
    insta::assert_snapshot!(refusal(|comparison| comparison.models.clear()),
        @"report is inconsistent: 0 models, 1 scorers and 6 images each; wanted one of each at least");
    insta::assert_snapshot!(refusal(|comparison| comparison.samples[2].prompt = 3),
        @"report is inconsistent: an image of prompt 3 of 3");
    insta::assert_snapshot!(refusal(|comparison| comparison.scores[0][0][0] = f64::NAN),
        @"score of prompt 0, seed 4 is not finite: 19.875 against NaN");
}

#[test]
fn with_a_focus_overall_results_are_about_one_category() {
    let mut comparison = comparison(3, 2, 9, 0);
    comparison.focus = Some("scenes".to_owned());
    let results = Results::of(&comparison).unwrap();
    assert_eq!(results.overall(0, 1, 0), results.win_rate(0, 1, 0, Some(1)));
    assert_eq!(results.win_rate(0, 1, 0, None), None);
    assert!(headline(&comparison, &results).contains("base by every scorer on scenes prompts"));
    assert!(page_of(&comparison).contains("Win rate against base, scenes"));
    comparison.focus = Some("plants".to_owned());
    let error = Results::of(&comparison).unwrap_err().to_string();
    assert_eq!(error, "report is inconsistent: no prompt of category \"plants\"");
}
