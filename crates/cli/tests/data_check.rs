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

/// A run of the set, checked and trained alike.
const RUN: &str = "output_dir = \"out\"\n[model]\npretrained_model_name_or_path = \"model\"\nmax_token_length = 150\n\
                   [data]\ntrain_data_dir = \"pairs\"\nresolution = 32\nheld_out_fraction = 0.34\n[train]\nseed = 3\n\
                   max_train_steps = 1\n[validation]\nvalidation_steps = 1\n";

#[test]
fn a_set_is_checked_for_the_run_of_a_recipe_and_says_for_which() {
    let bench = Bench::new();
    bench.write("first.toml", format!("{RUN}[method]\nname = \"mapo\"\n"));
    let said = bench.succeed(&["data", "check", "first.toml"]);
    let words =
        "checked for resolution 32, held_out_fraction 0.34, seed 3, max_token_length 150 (first.toml)\n";
    assert!(said.stdout.contains(words), "{}", said.stdout);
    assert!(said.stdout.contains("6 rows, 6 pairs to use, 2 of them held out"), "{}", said.stdout);
    assert!(said.stderr.ends_with("next: tastemaker train first.toml\n"), "{}", said.stderr);
    let header = fs::read_to_string(bench.path("check-pairs/check.jsonl")).unwrap();
    let header: serde_json::Value = serde_json::from_str(header.lines().next().unwrap()).unwrap();
    assert_eq!((&header["resolution"], &header["max_token_length"]), (&32.into(), &150.into()));
    let run = bench.succeed(&["train", "first.toml"]);
    assert!(run.stderr.contains("on 4 pairs, 2 held out"), "{}", run.stderr);
    let said = bench.succeed(&["data", "check", "first.toml", "--resolution", "48", "--seed", "4"]);
    assert!(said.stdout.contains("resolution 48, held_out_fraction 0.34, seed 4, "), "{}", said.stdout);
    let said = bench.succeed(&["data", "check", "pairs"]);
    let words = "checked for resolution 512, held_out_fraction 0.05, seed 0, max_token_length 75 (defaults; ";
    assert!(said.stdout.contains(words), "{}", said.stdout);
}

#[test]
fn single_images_are_images_and_no_pairs() {
    let bench = Bench::new();
    let row =
        |i: u32| format!("{{\"image\": \"warm{i}.png\", \"label\": {}, \"caption\": \"a fox\"}}\n", i % 2);
    bench.write("pairs/metadata.jsonl", (0..6).map(row).collect::<String>());
    bench.write("kto.toml", format!("{RUN}[method]\nname = \"kto\"\n"));
    let by_recipe = bench.succeed(&["data", "check", "kto.toml"]);
    let by_flag = bench.succeed(&["data", "check", "pairs", "--method", "kto"]);
    for said in [by_recipe, by_flag] {
        assert!(said.stdout.contains("6 rows, 6 images to use"), "{}", said.stdout);
        assert!(said.stdout.contains("3 images are liked, 3 are not"), "{}", said.stdout);
        assert!(!timeless(&said).replace("check-pairs", "").contains("pairs to use"), "{}", said.stdout);
    }
}

#[test]
fn a_skipped_row_has_one_number() {
    let bench = Bench::new();
    let list = bench.path("pairs/metadata.jsonl");
    let rows = fs::read_to_string(&list).unwrap();
    let (first, rest) = rows.split_once('\n').unwrap();
    fs::write(&list, format!("{first}\n\n{{\n{rest}")).unwrap();
    let said = bench.train("out", &["--method", "mapo"]);
    assert!(said.stderr.contains("note: line 3: is not valid JSON"), "{}", said.stderr);
    assert!(!said.stderr.contains("row 1"), "{}", said.stderr);
    bench.succeed(&["data", "check", "pairs"]);
    let lines = fs::read_to_string(bench.path("check-pairs/check.jsonl")).unwrap();
    assert!(lines.contains("\"place\":\"line 3\"") && !lines.contains("row 1\""), "{lines}");
}

#[test]
fn the_last_line_can_be_pasted() {
    let bench = Bench::new();
    // Only what the embedded scorer knows.
    let list = bench.path("pairs/metadata.jsonl");
    let rows = fs::read_to_string(&list).unwrap();
    let known = [("a red house", "cat"), ("a fox", "dog"), ("rain over the sea", "cat")];
    fs::write(&list, known.iter().fold(rows, |rows, (old, new)| rows.replace(old, new))).unwrap();
    let scorer = ["--scorer", "nearest-art:style"];
    let lines: [&[&str]; 4] = [
        &["data", "check", "pairs"],
        &["score", "pairs/warm0.png", "--prompt", "cat", scorer[0], scorer[1]],
        &["data", "relabel", "pairs", "--keep_ties", scorer[0], scorer[1]],
        &["data", "check", "broken"],
    ];
    bench.pairs("broken", 3);
    bench.write("broken/warm1.png", "no image");
    for line in lines {
        let said = bench.succeed(line);
        let next = |said: &Said| {
            let last = said.stderr.lines().last().unwrap().to_owned();
            last.strip_prefix("next: tastemaker ")
                .unwrap_or_else(|| panic!("{line:?}: {}", said.stderr))
                .to_owned()
        };
        let first = next(&said);
        let pasted = bench.succeed(&first.split(' ').collect::<Vec<_>>());
        if !first.starts_with("score ") {
            next(&pasted);
        }
    }
}
