//! The demo's report, over made-up results.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod made_up;

use made_up::Size;
use serde_json::Value;
use tastemaker_demo::report::{Details, Finding, Severity, extras, findings, table};
use tastemaker_eval::compare::{Comparison, Results, page, summary, write};

fn page_of(comparison: &Comparison, details: &Details) -> String {
    let results = Results::of(comparison).unwrap();
    page(comparison, &results, &extras(comparison, &results, details))
}

fn summary_of(comparison: &Comparison, details: &Details) -> Value {
    let results = Results::of(comparison).unwrap();
    let text = summary(comparison, &results, &extras(comparison, &results, details)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn findings_of(comparison: &Comparison, details: &Details) -> Vec<Finding> {
    findings(comparison, &Results::of(comparison).unwrap(), details)
}

/// The sections that a plain comparison does not have, a line for each element that begins one.
fn own_sections(html: &str) -> String {
    let section = |id: &str| {
        let start = html.find(&format!("<section id=\"{id}\">")).unwrap();
        &html[start..start + html[start..].find("</section>").unwrap()]
    };
    let sections: String = ["alarms", "reading", "costs", "training", "judge"].map(section).concat();
    ["section", "h2", "h3", "p", "tr", "li", "figure", "div"].iter().fold(sections, |text, name| {
        text.replace(&format!("<{name}>"), &format!("\n<{name}>"))
            .replace(&format!("<{name} "), &format!("\n<{name} "))
    })
}

#[test]
fn the_markup_is_as_reviewed() {
    let (comparison, details) = made_up::demo(Size::Small);
    insta::assert_snapshot!(own_sections(&page_of(&comparison, &details)));
}

#[test]
fn the_summary_and_the_table_are_as_reviewed() {
    let (comparison, details) = made_up::demo(Size::Small);
    let results = Results::of(&comparison).unwrap();
    let summary = summary_of(&comparison, &details);
    let own =
        ["task", "seed", "headline", "fractions", "training", "judge_check", "scorer_check", "findings"];
    let own: serde_json::Map<String, Value> =
        own.iter().map(|name| ((*name).to_owned(), summary[*name].clone())).collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&own).unwrap());
    insta::assert_snapshot!(table(&comparison, &results, &details));
}

#[test]
fn equal_reports_give_equal_bytes() {
    let page = || {
        let (comparison, details) = made_up::demo(Size::Small);
        page_of(&comparison, &details)
    };
    assert_eq!(page(), page());
}

#[test]
fn names_and_prompts_cannot_become_markup() {
    let (comparison, details) = made_up::demo(Size::Small);
    let html = page_of(&comparison, &details);
    assert!(html.contains("unfinished &lt;method&gt;") && !html.contains("<method>"));
    assert!(html.contains("cat &amp; &quot;dog&quot;"));
}

#[test]
fn a_lost_comparison_is_reported() {
    let (comparison, details) = made_up::demo(Size::Small);
    let found = findings_of(&comparison, &details);
    let about = |name: &str| {
        let of_name = found.iter().filter(|finding| finding.model == name);
        of_name.map(|finding| (finding.severity, finding.what.clone())).collect::<Vec<_>>()
    };
    let lost = about("ddim-inpo");
    assert_eq!(lost[0].0, Severity::Error);
    assert!(lost[0].1.starts_with("Lost to the base on held-out prompts: it wins only 24%"));
    assert!(lost.iter().any(|(_, what)| what.contains("fell by 20.0 points to 51%")), "{lost:?}");
    assert!(lost.iter().any(|(_, what)| what.contains("Its error on winners grew to")), "{lost:?}");
    assert!(about("mapo")[0].1.starts_with("Not shown to beat the base"));
    assert!(about("unfinished <method>")[0].1.contains("not finite at step 12"));
    assert!(about("diffusion-dpo").iter().all(|(severity, _)| *severity == Severity::Note));
    assert!(found.is_sorted_by_key(|finding| finding.severity));
    let html = page_of(&comparison, &details);
    assert!(found.iter().all(|finding| html.contains(finding.what.split('\'').next().unwrap())));
}

#[test]
fn every_summary_field_is_described_in_the_reference() {
    let reference =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/summary.md"))
            .unwrap();
    let (comparison, details) = made_up::demo(Size::Small);
    let summary = summary_of(&comparison, &details);
    let rows = ["fractions", "training", "judge_check", "findings"].map(|list| &summary[list][0]);
    let parts = [&summary, &summary["scorer_check"], &summary["scorer_check"]["rows"][0]];
    for field in parts.into_iter().chain(rows).flat_map(|part| part.as_object().unwrap().keys()) {
        assert!(reference.contains(&format!("`{field}`")), "{field} is not described");
    }
}

#[test]
fn a_method_without_a_result_keeps_every_field_as_null() {
    let (comparison, details) = made_up::demo(Size::Small);
    let summary = summary_of(&comparison, &details);
    for (list, n) in [("fractions", 2), ("training", 1)] {
        let rows = summary[list].as_array().unwrap();
        let of = |name: &str| rows.iter().filter(|row| row["model"] == name).collect::<Vec<_>>();
        let (finished, unfinished) = (of("mapo"), of("unfinished <method>"));
        assert_eq!((finished.len(), unfinished.len()), (n, n));
        let names = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(finished[0]), names(unfinished[0]));
    }
    assert!(summary["fractions"][8]["caption_accuracy"].is_number());
    assert!(summary["fractions"][10]["caption_accuracy"].is_null());
}

#[test]
fn a_scorer_that_contradicts_the_judge_is_reported() {
    let (mut comparison, details) = made_up::demo(Size::Small);
    comparison.scores[1][2] = comparison.scores[1][4].clone();
    let of_dpo: Vec<String> = findings_of(&comparison, &details)
        .into_iter()
        .filter(|finding| finding.model == "diffusion-dpo" && finding.severity == Severity::Warning)
        .map(|finding| finding.what)
        .collect();
    assert_eq!(of_dpo.len(), 1);
    assert!(of_dpo[0].starts_with("The preference scorer disagrees with the judge: by its scores"));
}

#[test]
fn without_a_scorer_neither_page_nor_summary_speaks_of_one() {
    let (mut comparison, mut details) = made_up::demo(Size::Small);
    details.scorer_check = None;
    comparison.scorers.pop();
    comparison.scores.pop();
    assert!(!page_of(&comparison, &details).contains("preference scorer"));
    assert!(summary_of(&comparison, &details)["scorer_check"].is_null());
}

#[test]
fn a_demo_in_which_every_method_failed_still_has_a_report() {
    let (mut comparison, mut details) = made_up::demo(Size::Small);
    comparison.models.truncate(1);
    comparison.scores.iter_mut().for_each(|scores| scores.truncate(1));
    comparison.shown.iter_mut().for_each(|shown| shown.images.truncate(1));
    details.methods.drain(..4);
    let html = page_of(&comparison, &details);
    assert!(html.contains("Nothing was compared with base.") && html.contains("Ended early: the loss"));
}

#[test]
#[ignore = "writes a page to look at: `-- --ignored`, then target/tmp/report-example"]
fn a_page_to_look_at() {
    let (comparison, details) = made_up::demo(Size::Full);
    let results = Results::of(&comparison).unwrap();
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/report-example");
    write(&comparison, &results, &extras(&comparison, &results, &details), folder).unwrap();
}
