//! `tastemaker data check`, and training with the list it writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, Said, files, mistake};

/// Six pairs, one of them with an image cut short, and a tie.
fn bench() -> Bench {
    let bench = Bench::new();
    let image = bench.path("pairs/warm2.png");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..whole.len() / 2]).unwrap();
    let list = bench.path("pairs/metadata.jsonl");
    let rows = fs::read_to_string(&list).unwrap();
    let tie = rows.lines().next().unwrap().replace("\"prefer_0\": false", "\"prefer_0\": true");
    fs::write(&list, format!("{rows}{tie}\n")).unwrap();
    bench
}

fn check(bench: &Bench, more: &[&str]) -> Said {
    let line = ["data", "check", "pairs", "--resolution", "32", "--held_out_fraction", "0"];
    bench.run(&[line.as_slice(), more].concat())
}

/// The output without the line about time.
fn timeless(said: &Said) -> String {
    said.stdout.lines().filter(|line| !line.contains("% utilization, ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_check_says_what_it_found_and_where_the_page_is() {
    let bench = bench();
    let before = files(&bench.path("pairs"));
    let said = check(&bench, &["--fix"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_snapshot!(timeless(&said));
    let found: Vec<_> = files(&bench.path("check-pairs")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        found.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
        ["check.jsonl", "excluded.jsonl", "index.html"]
    );
    assert!(files(&bench.path("pairs")) == before);
}

#[test]
fn training_skips_what_the_list_names() {
    let bench = bench();
    assert_eq!(check(&bench, &["--fix"]).code, 0);
    let said = bench.train("out", &["--method", "mapo", "--exclude", "check-pairs/excluded.jsonl"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("note: skipped 2 rows: 1 tie, 1 excluded by a list"), "{}", said.stderr);
    assert!(said.stderr.contains("on 5 pairs, 0 held out"), "{}", said.stderr);
    let known = check(&bench, &["--exclude", "check-pairs/excluded.jsonl", "--strict"]);
    assert_eq!(known.code, 0, "{}", known.stderr);

    bench.pairs("pairs", 5);
    let other = bench.train("other", &["--method", "mapo", "--exclude", "check-pairs/excluded.jsonl"]);
    assert_eq!(other.code, 3);
    assert!(other.stderr.contains("was made for a set with fingerprint"), "{}", other.stderr);
}

#[test]
fn a_list_that_a_user_edited_is_not_replaced() {
    let bench = bench();
    assert_eq!(check(&bench, &["--fix"]).code, 0);
    assert_eq!(check(&bench, &["--fix"]).code, 0, "nobody edited it");
    let list = bench.path("check-pairs/excluded.jsonl");
    let whole = fs::read_to_string(&list).unwrap();
    assert_eq!(whole.lines().count(), 2);
    let header = whole.lines().next().unwrap();
    let old_header = format!("{},{}", header.split_once(",\"rows_sha256").unwrap().0, "");
    let old_header = format!("{}}}", old_header.trim_end_matches(','));
    let as_before = whole.replace(header, &old_header);
    for mine in [
        format!("{whole}{{\"row\": 4}}\n"),
        format!("{header}\n"),
        whole.replace(":2,", ":3,"),
        format!("{as_before}{{\"row\": 4}}\n"),
        "mine\n".to_owned(),
        String::new(),
    ] {
        assert_ne!(mine, whole);
        fs::write(&list, &mine).unwrap();
        let said = mistake(&check(&bench, &["--fix"]));
        assert!(said.starts_with("exit code 5\n"), "{mine}: {said}");
        let words =
            "excluded.jsonl was edited since it was written; choose another --output_dir, or --overwrite";
        assert!(said.contains(words), "{mine}: {said}");
        assert_eq!(fs::read_to_string(&list).unwrap(), mine);
        assert_eq!(check(&bench, &[]).code, 0, "nothing is written there without --fix");
    }
    fs::write(&list, format!("{whole}{{\"row\": 4}}\n")).unwrap();
    let keeping = ["--fix", "--overwrite", "--exclude", "check-pairs/excluded.jsonl"];
    assert_eq!(check(&bench, &keeping).code, 0);
    assert_eq!(fs::read_to_string(&list).unwrap().lines().count(), 3, "its rows stay");
    fs::write(&list, as_before).unwrap();
    assert_eq!(check(&bench, &["--fix"]).code, 0, "nobody edited that of an earlier version");
}

#[test]
fn strict_ends_with_the_code_of_bad_pairs() {
    let bench = bench();
    assert_snapshot!(
        mistake(&check(&bench, &["--strict"]))
            .lines()
            .filter(|line| !line.starts_with("checking"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    bench.pairs("pairs", 6);
    assert_eq!(check(&bench, &["--strict"]).code, 0);
    assert_eq!(check(&bench, &["--strict=warnings"]).code, 3);
}

#[test]
fn what_cannot_be_asked_is_a_mistake_that_says_why() {
    let bench = bench();
    bench.write("notes/thesis.txt", "x");
    for (more, code) in [
        (["--fix=nonsense"], 2),
        (["--fix=tie"], 2),
        (["--held-out-fraction=1"], 2),
        (["--output_dir=pairs/check"], 5),
        (["--output_dir=notes"], 5),
    ] {
        let said = check(&bench, &more);
        assert_eq!(said.code, code, "{}", said.stderr);
        assert_snapshot!(mistake(&said));
    }
}

#[test]
fn the_guide_names_every_check() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/checking-pairs.md");
    let page = fs::read_to_string(path).unwrap();
    for check in tastemaker_data::check::CHECKS {
        let row = format!(
            "| `{}` | {} | {}: {} | {} |",
            check.name,
            check.severity.name(),
            check.what,
            check.why,
            check.fix.words()
        );
        assert!(page.contains(&row), "wanted this row:\n{row}");
    }
}
