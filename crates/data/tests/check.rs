//! Sets with every defect, checked.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod made;

use std::fs;

use made::{Set, contents, image, jpeg, row};
use serde_json::Value;
use tastemaker_data::check::{CHECKS, CaptionTokens, Kind, Settings, Severity, Summary, fixed_by, write};
use tastemaker_data::formats::{OpenSettings, open, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, PairSource, Side, exclusions};
use tastemaker_store::tree::Location;
use tempfile::TempDir;

fn settings() -> Settings {
    Settings {
        resolution: 32,
        is_drawn: false,
        held_out_fraction: 0.0,
        seed: 0,
        caption_tokens: None,
        workers: 2,
        exclude: Vec::new(),
    }
}

/// Checks a set into a folder, and returns the summary and the findings as they are on disk.
fn check_into(out: &TempDir, set: &PairSet, settings: &Settings) -> (Summary, Vec<Value>) {
    let (summary, written) = write(set, set.path(), settings, out.path(), &mut |_, _| ()).unwrap();
    let text = fs::read_to_string(written.findings).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (summary, lines)
}

fn findings(set: &Set, settings: &Settings) -> Vec<Value> {
    let out = tempfile::tempdir().unwrap();
    check_into(&out, &open(set.path()).unwrap(), settings).1.split_off(1)
}

/// Which checks found something in which rows and sides.
fn found(findings: &[Value]) -> Vec<(u64, &str, Option<&str>)> {
    let of = |line: &'_ Value| line["row"].as_u64().unwrap();
    findings
        .iter()
        .filter(|line| !line["row"].is_null())
        .map(|line| (of(line), line["check"].as_str().unwrap(), line["side"].as_str()))
        .collect()
}

fn detail<'a>(findings: &'a [Value], check: &str) -> &'a str {
    findings.iter().find(|line| line["check"] == check).unwrap()["detail"].as_str().unwrap()
}

/// One row per defect that a row of a list can have.
fn broken() -> Set {
    let set = Set::new();
    for seed in 0..14 {
        set.save(&format!("{seed}.png"), &image(40, 40, seed));
    }
    let whole = jpeg(&image(40, 40, 20), 90);
    set.write("half.jpg", &whole[..whole.len() / 2]);
    set.write("soft.jpg", jpeg(&image(256, 256, 21), 60));
    set.write("sharp.jpg", jpeg(&image(256, 256, 21), 95));
    set.write("turned.jpg", made::turned(&jpeg(&image(40, 40, 22), 90)));
    set.save("wide.png", &image(60, 40, 23));
    set.save("large.png", &image(80, 80, 24));
    set.save("small.png", &image(24, 24, 25));
    set.list(&[
        row("0.png", "1.png", "a fox", 0),
        r#"{"image_0":"0.png","image_1":"1.png","prompt":"tie","prefer_0":true,"prefer_1":true}"#.into(),
        "{\"image_0\": 7}".into(),
        row("0.png", "none.png", "a cat", 0),
        row("half.jpg", "2.png", "a dog", 0),
        row("3.png", "3.png", "a cow", 1),
        row("soft.jpg", "sharp.jpg", "a hen", 0),
        row("4.png", "turned.jpg", "an owl", 1),
        row("5.png", "wide.png", "an ant", 0),
        row("6.png", "large.png", "a bee", 1),
        row("7.png", "small.png", "a bat", 0),
        row("8.png", "9.png", " ?! ", 1),
        row("1.png", "0.png", "A fox!", 1),
        row("0.png", "1.png", "a  fox", 1),
        row("10.png", "11.png", "a yak", 0),
    ]);
    set
}

#[test]
fn each_defect_is_found_in_its_row_and_side() {
    let lines = findings(&broken(), &settings());
    assert_eq!(
        found(&lines),
        [
            (1, "tie", None),
            (2, "bad-row", None),
            (3, "missing-image", None),
            (4, "bad-image", Some("winner")),
            (5, "identical-images", None),
            (6, "near-identical-images", None),
            (7, "exif-orientation", Some("winner")),
            (8, "aspect-mismatch", None),
            (9, "size-mismatch", None),
            (10, "size-mismatch", None),
            (10, "upscaled", Some("loser")),
            (11, "empty-caption", None),
            (12, "duplicate-pair", None),
            (13, "contradiction", None),
        ]
    );
    assert_eq!(lines[3]["place"], "row 4");
    assert!(lines[3]["file"].as_str().unwrap().ends_with("half.jpg"));
    assert!(detail(&lines, "bad-image").contains("the file ends before the image does"));
    assert_eq!(detail(&lines, "exif-orientation"), "EXIF orientation 6, and training ignores it");
    assert_eq!(detail(&lines, "upscaled"), "24 x 24 pixels; 32 wanted of the shorter side");
    assert_eq!(detail(&lines, "duplicate-pair"), "the same as row 0");
    assert_eq!(detail(&lines, "contradiction"), "the other image won in row 0");
    assert_eq!(detail(&lines, "tie"), "no winner");
}

#[test]
fn captions_that_differ_or_are_not_there_are_found_by_row_and_reason() {
    let set = Set::new();
    for name in ["ape", "bee", "cat", "dog"] {
        for (side, seed) in [("w", 1), ("l", 2)] {
            set.save(&format!("{side}/{name}.png"), &image(40, 40, seed + name.len() as u32));
        }
        set.write(&format!("w/{name}.txt"), name);
    }
    set.write("l/bee.txt", "a wasp");
    fs::remove_file(set.path().join("w/cat.txt")).unwrap();
    fs::remove_file(set.path().join("l/dog.png")).unwrap();
    let lines = findings(&set, &settings());
    let rows = [(1, "captions-differ", None), (2, "no-caption", None), (3, "no-counterpart", None)];
    assert_eq!(found(&lines), rows);
    assert_eq!(lines[0]["place"], "pair bee");
    assert_eq!(lines[0]["detail"], "\"bee\" of the winner, \"a wasp\" of the loser");
}

#[test]
fn the_summary_counts_what_was_found() {
    let (set, out) = (broken(), tempfile::tempdir().unwrap());
    let (summary, lines) = check_into(&out, &open(set.path()).unwrap(), &settings());
    assert_eq!((summary.n_rows, summary.n_pairs, summary.n_usable), (15, 12, 11));
    assert_eq!(lines[0]["rows"], 15);
    // 24 images, one of which does not decode and two of which are 256 pixels wide.
    assert_eq!(summary.sizes[..3], [21, 2, 0]);
    let text = summary.to_string().replace(&set.path().display().to_string(), "pairs");
    insta::assert_snapshot!(text);
}

#[test]
fn the_number_of_workers_changes_no_byte() {
    let set = broken();
    let pairs = open(set.path()).unwrap();
    let outputs = [1, 4].map(|workers| {
        let out = tempfile::tempdir().unwrap();
        check_into(&out, &pairs, &Settings { workers, held_out_fraction: 0.5, ..settings() });
        contents(out.path())
    });
    assert_eq!(outputs[0].len(), 2);
    assert!(outputs[0] == outputs[1]);
}

#[test]
fn the_set_is_never_written_to() {
    let set = broken();
    let before = contents(set.path());
    let exclude = fixed_by("all").unwrap();
    let out = tempfile::tempdir().unwrap();
    check_into(&out, &open(set.path()).unwrap(), &Settings { exclude, ..settings() });
    assert!(contents(set.path()) == before);
}

#[test]
fn captions_and_images_on_both_sides_of_the_split_are_found_on_the_held_out_side() {
    let set = Set::new();
    for seed in 0..30 {
        set.save(&format!("{seed}.png"), &image(40, 40, seed));
    }
    let settings = Settings { held_out_fraction: 5.0 / 7.0, ..settings() };
    // Captions that are drawn come first in the order by which they are counted.
    let held = |caption: &str| tastemaker_data::split::is_drawn(caption, 0.5, 0);
    let spelled = |base: &str, side: bool| {
        let mut dots = (0..).map(|n| format!("{base}{}", ".".repeat(n)));
        dots.find(|caption| held(caption) == side).unwrap()
    };
    set.list(&[
        row("0.png", "1.png", &spelled("a fox", true), 0),
        row("2.png", "3.png", &spelled("a fox", false), 0),
        row("4.png", "5.png", &spelled("a cow", false), 1),
        row("4.png", "6.png", &spelled("a hen", true), 1),
        row("7.png", "8.png", &spelled("a cat", true), 0),
        row("9.png", "8.png", &spelled("a dog", true), 1),
        row("2.png", "5.png", &spelled("a pig", true), 1),
    ]);
    let out = tempfile::tempdir().unwrap();
    let (summary, mut lines) = check_into(&out, &open(set.path()).unwrap(), &settings);
    assert_eq!(summary.rows[Kind::LeakedImage as usize], 2);
    lines.remove(0);
    let leaked = "leaked-image";
    let both = [(6, leaked, Some("winner")), (6, leaked, Some("loser"))];
    assert_eq!(found(&lines)[..2], [(0, "leaked-caption", None), (3, leaked, Some("loser"))]);
    assert_eq!(found(&lines)[2..], both);
    assert!(detail(&lines, "leaked-caption").starts_with("row 1 is trained on, with the caption \"a fox"));
    assert_eq!(detail(&lines, "leaked-image"), "row 2 is trained on, with the same image");
    assert!(found(&findings(&set, &Settings { held_out_fraction: 0.0, ..settings })).is_empty());
}

#[test]
fn winners_that_are_always_listed_first_are_found() {
    let set = Set::new();
    (0..80).for_each(|seed| set.save(&format!("{seed}.png"), &image(40, 40, seed)));
    let list = |first: &dyn Fn(u32) -> u32| {
        let rows: Vec<String> = (0..40)
            .map(|i| row(&format!("{i}.png"), &format!("{}.png", i + 40), &format!("caption {i}"), first(i)))
            .collect();
        set.list(&rows);
        findings(&set, &settings())
    };
    assert!(list(&|i| i % 2).is_empty());
    let lines = list(&|_| 0);
    assert_eq!((lines.len(), &lines[0]["row"]), (1, &Value::Null));
    assert!(
        detail(&lines, "label-imbalance").starts_with("the winner is listed first in 40 of 40 pairs, 100.0%")
    );
}

#[test]
fn what_is_excluded_is_no_error_any_more() {
    let (set, out) = (broken(), tempfile::tempdir().unwrap());
    let fix = Settings { exclude: fixed_by("default").unwrap(), ..settings() };
    let mut pairs = open(set.path()).unwrap();
    let (before, _) = check_into(&out, &pairs, &fix);
    assert_eq!(before.n(Severity::Error), 3);
    let list = out.path().join("excluded.jsonl");
    let fingerprint = pairs.fingerprint();
    exclusions::apply(&list, &mut pairs).unwrap();
    assert_ne!(pairs.fingerprint(), fingerprint);
    let again = tempfile::tempdir().unwrap();
    let (after, lines) = check_into(&again, &pairs, &settings());
    assert_eq!((after.n(Severity::Error), after.n_usable), (0, after.n_pairs));
    for gone in [Kind::BadImage, Kind::IdenticalImages, Kind::Contradiction, Kind::DuplicatePair] {
        assert_eq!(after.rows[gone as usize], 0);
    }
    assert_eq!((after.rows[Kind::Excluded as usize], after.rows[Kind::Tie as usize]), (6, 1));
    assert!(detail(&lines, "excluded").ends_with("excluded.jsonl"));
    for position in 0..pairs.len() {
        for side in Side::BOTH {
            pairs.image(position, side).unwrap();
        }
    }
}

#[test]
fn a_list_made_again_keeps_what_it_excluded_before() {
    let (set, out) = (broken(), tempfile::tempdir().unwrap());
    let fix = Settings { exclude: fixed_by("default").unwrap(), ..settings() };
    let mut pairs = open(set.path()).unwrap();
    let (_, list) = write(&pairs, pairs.path(), &fix, out.path(), &mut |_, _| ()).unwrap();
    let list = list.exclusions.unwrap();
    let rows = |text: String| -> Vec<Value> {
        let lines =
            text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()["row"].clone());
        lines.collect()
    };
    let before = rows(fs::read_to_string(&list).unwrap());
    assert_eq!(before, [2, 3, 4, 5, 12, 13]);
    exclusions::apply(&list, &mut pairs).unwrap();
    let fix = Settings { exclude: fixed_by("all").unwrap(), ..fix };
    write(&pairs, pairs.path(), &fix, out.path(), &mut |_, _| ()).unwrap();
    assert_eq!(rows(fs::read_to_string(&list).unwrap()), [2, 3, 4, 5, 6, 11, 12, 13]);
    exclusions::apply(&list, &mut open(set.path()).unwrap()).unwrap();
}

#[test]
fn a_list_for_another_set_or_with_a_bad_line_is_refused() {
    let (set, out) = (broken(), tempfile::tempdir().unwrap());
    let fix = Settings { exclude: fixed_by("default").unwrap(), ..settings() };
    let pairs = open(set.path()).unwrap();
    check_into(&out, &pairs, &fix);
    let list = out.path().join("excluded.jsonl");
    let refused = |set: &Set| exclusions::apply(&list, &mut open(set.path()).unwrap()).unwrap_err();

    let other = Set::new();
    (0..2).for_each(|seed| other.save(&format!("{seed}.png"), &image(40, 40, seed)));
    other.list(&[row("0.png", "1.png", "a fox", 0)]);
    let error = refused(&other);
    assert!(matches!(error, DataError::OtherSet { .. }));
    let text = error.to_string();
    assert!(text.contains(&tastemaker_store::checksum::hex(&pairs.fingerprint())), "{text}");
    assert!(text.contains("data check --fix"), "{text}");

    let whole = fs::read_to_string(&list).unwrap();
    for (bad, line) in [
        (String::new(), 1),
        ("not json\n".into(), 1),
        (whole.replace("\"exclusions_format\":1", "\"exclusions_format\":3"), 1),
        (format!("{whole}\n\n{{\"row\": -1}}\n"), whole.lines().count() + 3),
        (format!("{whole}{}", "x".repeat(1 << 20)), whole.lines().count() + 1),
    ] {
        fs::write(&list, bad).unwrap();
        let error = refused(&set);
        assert!(matches!(error, DataError::Exclusions { line: found, .. } if found == line), "{error}");
    }
}

#[test]
fn results_never_go_into_the_set_or_over_something_else() {
    let set = broken();
    let pairs = open(set.path()).unwrap();
    let refused = |folder: &std::path::Path| {
        let outcome = write(&pairs, set.path(), &settings(), folder, &mut |_, _| ());
        let error = outcome.unwrap_err();
        assert!(matches!(error, DataError::Output { .. }), "{error:?}");
        error.to_string()
    };
    let before = contents(set.path());
    for inside in [
        set.path().to_path_buf(),
        set.path().join("check"),
        set.path().join("../x").join(set.path()).join("y"),
    ] {
        assert!(refused(&inside).contains("belongs to the set"));
    }
    assert!(contents(set.path()) == before);
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("thesis.doc"), "x").unwrap();
    assert!(refused(out.path()).contains("something else"));
    fs::write(out.path().join("check.jsonl"), "{}\n").unwrap();
    assert!(refused(out.path()).contains("something else"));

    let out = tempfile::tempdir().unwrap();
    check_into(&out, &pairs, &settings());
    check_into(&out, &pairs, &settings());
}

#[test]
fn the_page_stands_alone_and_escapes_what_the_set_says() {
    let set = broken();
    let mut rows: Vec<String> =
        fs::read_to_string(set.path().join("metadata.jsonl")).unwrap().lines().map(str::to_owned).collect();
    rows.push(row("12.png", "small.png", "<script>alert(1)</script>", 0));
    set.list(&rows);
    let out = tempfile::tempdir().unwrap();
    check_into(&out, &open(set.path()).unwrap(), &settings());
    let page = fs::read_to_string(out.path().join("index.html")).unwrap();
    assert!(page.matches("<script").count() == 1 && page.contains("&lt;script&gt;"));
    assert!(!page.contains("http:") && !page.contains("https:"));
    assert!(page.find("id=\"pairs\"") < page.find("id=\"counts\""), "images come first");
    assert!(page.contains("does not decode") && page.matches("src=\"data:image/").count() > 10);
    for check in CHECKS {
        assert!(page.contains(check.name), "{} is missing", check.name);
    }
}

#[test]
fn a_single_image_is_looked_at_once_and_is_no_pair_of_itself() {
    let set = Set::new();
    set.save("0.png", &image(40, 40, 0));
    set.save("1.png", &image(24, 24, 1));
    set.write("half.png", b"no image");
    let row = |image: &str, label: u8| {
        serde_json::json!({"image": image, "label": label, "caption": image}).to_string()
    };
    set.list(&[row("0.png", 1), row("1.png", 0), row("half.png", 0)]);
    let settings = OpenSettings { unpaired: true, ..OpenSettings::default() };
    let singles = open_with(&Location::local(set.path()).unwrap(), &settings).unwrap();
    let out = tempfile::tempdir().unwrap();
    let findings = check_into(&out, &singles, &self::settings()).1.split_off(1);
    assert_eq!(found(&findings), [(1, "upscaled", Some("winner")), (2, "bad-image", Some("winner"))]);
    let words = check_into(&out, &singles, &self::settings()).0.to_string();
    assert!(words.contains("2 images to use, 0 of them held out\n"), "{words}");
    assert!(words.contains("1 images are liked, 2 are not\n") && !words.contains("pair"), "{words}");
    let page = fs::read_to_string(out.path().join("index.html")).unwrap();
    assert!(page.contains("images to use") && page.contains("Images to look at"), "{page}");
    assert_eq!(page.matches("<figure data-name=\"image\">").count(), 2);
}

#[test]
fn labels_of_single_images_are_weighed_by_how_many_there_are_of_each_and_never_by_their_order() {
    for (n_liked, n_disliked, wanted) in
        [(30, 30, false), (60, 1, true), (1, 60, true), (60, 0, false), (4, 1, false)]
    {
        let set = Set::new();
        set.save("0.png", &image(40, 40, 0));
        let rows: Vec<String> = (0..n_liked + n_disliked)
            .map(|at| {
                let row = serde_json::json!({"image": "0.png", "label": u8::from(at < n_liked), "caption": format!("c{at}")});
                row.to_string()
            })
            .collect();
        set.list(&rows);
        let settings = OpenSettings { unpaired: true, ..OpenSettings::default() };
        let singles = open_with(&Location::local(set.path()).unwrap(), &settings).unwrap();
        let out = tempfile::tempdir().unwrap();
        let (summary, lines) = check_into(&out, &singles, &self::settings());
        let is_found = lines[1..].iter().any(|line| line["check"] == "label-imbalance");
        assert_eq!(is_found, wanted, "{n_liked} and {n_disliked}: {summary}");
    }
}

#[test]
fn the_page_says_what_happens_to_each_row_and_prints_paths_as_they_are() {
    let (set, out) = (broken(), tempfile::tempdir().unwrap());
    check_into(&out, &open(set.path()).unwrap(), &settings());
    let page = fs::read_to_string(out.path().join("index.html")).unwrap();
    let missing = set.path().join("none.png").display().to_string();
    assert!(page.contains(&format!("<td class=\"text\">{missing}</td>")), "{missing}");
    assert!(page.contains(&format!("<p class=\"small\">{}</p>", set.path().join("half.jpg").display())));
    let outcomes = |word: &str| page.matches(&format!("<td>{word}</td>")).count();
    assert_eq!((outcomes("skipped"), outcomes("trained on")), (4, 9));
    assert!(!page.contains("would stop"));
}

#[test]
fn captions_that_the_text_encoder_cuts_are_found_with_the_tokens_lost() {
    let set = Set::new();
    (0..4).for_each(|seed| set.save(&format!("{seed}.png"), &image(40, 40, seed)));
    let words = |n: usize| vec!["w"; n].join(" ");
    set.list(&[
        row("0.png", "1.png", &words(9), 0),
        row("2.png", "3.png", &words(5), 1),
        row("1.png", "2.png", &words(7), 1),
    ]);
    let words = |text: &str| text.split(' ').count();
    let settings = Settings { caption_tokens: Some(CaptionTokens { count: words, limit: 5 }), ..settings() };
    let out = tempfile::tempdir().unwrap();
    let (summary, lines) = check_into(&out, &open(set.path()).unwrap(), &settings);
    assert_eq!(found(&lines[1..]), [(0, "cut-caption", None), (2, "cut-caption", None)]);
    assert_eq!(detail(&lines, "cut-caption"), "9 tokens; 5 are seen and 4 are cut");
    assert_eq!((summary.n_tokens_cut, summary.rows[Kind::CutCaption as usize]), (6, 2));
    assert!(
        summary.to_string().contains("2 captions lose 6 tokens to the text encoder's length"),
        "{summary}"
    );
}
