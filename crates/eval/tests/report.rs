//! The report's markup and its summary, over made-up results.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

#[path = "support/made_up.rs"]
mod made_up;

use made_up::Size;
use tastemaker_eval::report::{Report, Severity, findings, page, summary};

fn main_element(html: &str) -> &str {
    let (start, end) = (html.find("<main>").unwrap(), html.find("</main>").unwrap());
    &html[start..end]
}

#[test]
fn the_markup_is_as_reviewed() {
    insta::assert_snapshot!(main_element(&page(&made_up::report(Size::Small)).unwrap()));
}

#[test]
fn the_summary_is_as_reviewed() {
    // The text itself: reading it back could round the last digit.
    let summary = summary(&made_up::report(Size::Small)).unwrap();
    let of = |label: &str| summary.find(&format!("\"label\": \"{label}\"")).unwrap();
    let (start, end) = (of("Diffusion-DPO"), of("MaPO"));
    insta::assert_snapshot!(&summary[start..end]);
}

#[test]
fn equal_reports_give_equal_bytes() {
    assert_eq!(page(&made_up::report(Size::Small)).unwrap(), page(&made_up::report(Size::Small)).unwrap());
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let html = page(&made_up::report(Size::Small)).unwrap();
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
    let html = page(&made_up::report(Size::Small)).unwrap();
    assert!(html.contains("Unfinished &lt;method&gt;") && !html.contains("<method>"));
    assert!(html.contains("cat &amp; &quot;dog&quot;"));
}

#[test]
fn a_lost_comparison_is_reported_whatever_the_caller_says() {
    let mut report = made_up::report(Size::Small);
    report.alarms.clear();
    let found = findings(&report);
    let about = |label: &str| {
        let of_label = found.iter().filter(|alarm| alarm.method.as_deref() == Some(label));
        of_label.map(|alarm| (alarm.severity, alarm.what.as_str())).collect::<Vec<_>>()
    };
    let lost = about("DDIM-InPO");
    assert!(
        lost[0].0 == Severity::Failure && lost[0].1.starts_with("Lost to the base on held-out captions"),
        "{lost:?}"
    );
    assert!(lost.iter().any(|(_, what)| what.contains("fell by 20.0 points to 51%")), "{lost:?}");
    assert!(lost.iter().any(|(_, what)| what.contains("Its error on winners grew to")), "{lost:?}");
    assert!(about("MaPO")[0].1.starts_with("Not shown to beat the base"));
    assert!(about("Unfinished <method>")[0].1.contains("not finite at step 12"));
    assert!(about("Diffusion-DPO").iter().all(|(severity, _)| *severity == Severity::Remark));
    assert!(found.is_sorted_by_key(|alarm| alarm.severity));
    let html = page(&report).unwrap();
    assert!(found.iter().all(|alarm| html.contains(alarm.what.split('\'').next().unwrap())));
}

#[test]
fn every_summary_field_is_described_in_the_reference() {
    let reference =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/summary.md"))
            .unwrap();
    let summary: serde_json::Value =
        serde_json::from_str(&summary(&made_up::report(Size::Small)).unwrap()).unwrap();
    let parts = [
        &summary,
        &summary["base"],
        &summary["methods"]["mapo"],
        &summary["judge_check"][0],
        &summary["scorer_check"],
        &summary["scorer_check"]["rows"][0],
        &summary["findings"][0],
    ];
    for field in parts.iter().flat_map(|part| part.as_object().unwrap().keys()) {
        // The second half of every group of fields is described once, for both.
        let stem = field.replace("_held_out", "_GROUP").replace("_seen", "_GROUP");
        let described = [field, &stem, &field.replace("_seen", "")]
            .iter()
            .any(|name| reference.contains(&format!("`{name}`")));
        assert!(described, "{field} (or {stem}) is not described");
    }
}

#[test]
fn a_method_without_a_result_keeps_every_field_as_null() {
    let summary: serde_json::Value =
        serde_json::from_str(&summary(&made_up::report(Size::Small)).unwrap()).unwrap();
    let (finished, unfinished) = (&summary["methods"]["mapo"], &summary["methods"]["unfinished"]);
    assert!(unfinished["win_rate_held_out"].is_null() && unfinished["caption_accuracy"].is_null());
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(finished), names(unfinished));
}

#[test]
fn a_report_survives_being_stored() {
    let report = made_up::report(Size::Small);
    let stored = serde_json::to_string(&report).unwrap();
    assert_eq!(page(&serde_json::from_str::<Report>(&stored).unwrap()).unwrap(), page(&report).unwrap());
}

#[test]
fn a_scorer_that_contradicts_the_judge_is_reported() {
    let mut report = made_up::report(Size::Small);
    report.alarms.clear();
    let lost = report.methods[3].outcome.as_ref().unwrap().versus_base.held_out;
    report.methods[1].outcome.as_mut().unwrap().versus_base_by_scorer = Some(lost);
    let of_dpo: Vec<String> = findings(&report)
        .into_iter()
        .filter(|alarm| {
            alarm.method.as_deref() == Some("Diffusion-DPO") && alarm.severity == Severity::Warning
        })
        .map(|alarm| alarm.what)
        .collect();
    assert_eq!(of_dpo.len(), 1);
    assert!(of_dpo[0].starts_with("The preference scorer disagrees with the judge: by its scores"));
}

#[test]
fn without_a_scorer_neither_page_nor_summary_speaks_of_one() {
    let mut report = made_up::report(Size::Small);
    report.scorer_check = None;
    for outcome in report.methods.iter_mut().filter_map(|method| method.outcome.as_mut()) {
        outcome.versus_base_by_scorer = None;
    }
    assert!(!page(&report).unwrap().contains("preference scorer"));
    let summary: serde_json::Value = serde_json::from_str(&summary(&report).unwrap()).unwrap();
    assert!(summary["scorer_check"].is_null());
    assert!(summary["methods"]["mapo"]["win_rate_by_scorer_held_out"].is_null());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let refusal = |damage: fn(&mut Report)| {
        let mut report = made_up::report(Size::Small);
        damage(&mut report);
        page(&report).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refusal(|report| { report.images.rows[0].images.pop(); }),
        @r#"report is inconsistent: image row "Real art" has 1 images for 2 prompts"#);
    insta::assert_snapshot!(refusal(|report| report.methods[1].name = "mapo".to_owned()),
        @r#"report is inconsistent: two methods are named "mapo""#);
    insta::assert_snapshot!(refusal(|report| report.images.rows[2].method = Some("other".to_owned())),
        @r#"report is inconsistent: image row "SFT control" names unknown method "other""#);
}

#[test]
fn writing_gives_the_page_and_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let report = made_up::report(Size::Small);
    let path = tastemaker_eval::report::write(&report, folder.path().join("new/out")).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page(&report).unwrap());
    assert_eq!(
        std::fs::read_to_string(path.with_file_name("summary.json")).unwrap(),
        summary(&report).unwrap()
    );
}
