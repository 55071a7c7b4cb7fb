//! One bad row never costs the set: it is left out by name, and the others are as without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use support::{Bench, Said, files};

/// Captions that the embedded scorer knows; it judges by a file's caption alone and needs no weights.
const CAPTIONS: [&str; 8] = ["cat", "dog", "red apple", "grinning face", "cat", "dog", "red apple", "cat"];

/// Rows of which an image is damaged.
const DAMAGED: [usize; 4] = [1, 3, 4, 6];

fn encoded(seed: u32, format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(40, 32, |x, y| {
        Rgb([(x * 5 + seed * 31) as u8, (y * 7) as u8, (x * y + seed) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The image of a row, as it should be or as a download leaves it that went wrong.
fn image(row: usize, side: u32, damaged: bool) -> Vec<u8> {
    let png = encoded(row as u32 * 2 + side, ImageFormat::Png);
    match (damaged, row % 4) {
        (false, _) => png,
        (true, 0) => Vec::new(),
        (true, 1) => b"<!DOCTYPE html><html><body>404 Not Found</body></html>".to_vec(),
        (true, 2) => encoded(row as u32, ImageFormat::Jpeg)[..700].to_vec(),
        (true, _) => png[..png.len() / 2].to_vec(),
    }
}

/// Pairs in `name`, those of the damaged rows damaged or not there at all.
fn pairs(bench: &Bench, name: &str, damaged: bool) {
    let mut list = String::new();
    for (row, caption) in CAPTIONS.iter().enumerate() {
        let bad = DAMAGED.contains(&row);
        if bad && !damaged {
            continue;
        }
        for side in 0..2 {
            // One side or the other.
            bench.write(&format!("{name}/{row}-{side}.png"), image(row, side, bad && side == row as u32 % 2));
        }
        list += &format!(
            "{{\"image_0\": \"{row}-0.png\", \"image_1\": \"{row}-1.png\", \"prompt\": \"{caption}\", \"prefer_0\": true, \"prefer_1\": false}}\n"
        );
    }
    bench.write(&format!("{name}/metadata.jsonl"), list);
}

/// Images named as those of `sample` in `name`, the damaged ones damaged.
fn images(bench: &Bench, name: &str, shift: u32, damaged: &[usize]) {
    for row in 0..CAPTIONS.len() {
        bench.write(&format!("{name}/{row:04}-0.png"), image(row, shift, damaged.contains(&row)));
    }
}

#[track_caller]
fn names_rows(said: &Said, wanted: &[&str]) {
    let lines = wanted.iter().filter(|name| !said.stderr.contains(**name)).collect::<Vec<_>>();
    assert!(lines.is_empty(), "{lines:?} not in {}", said.stderr);
}

const BAD_FILES: [&str; 4] = ["1-1.png", "3-1.png", "4-0.png", "6-0.png"];

#[test]
fn a_set_with_damaged_images_is_converted_without_them_and_says_how_many_pairs_it_wrote() {
    for layout in ["pick-a-pic", "jsonl"] {
        let bench = Bench::empty();
        pairs(&bench, "all", true);
        pairs(&bench, "clean", false);
        let said = bench.succeed(&["data", "convert", "all", "from-all", "--to", layout]);
        assert!(said.stdout.starts_with("wrote from-all: 4 pairs, "), "{}", said.stdout);
        assert!(said.stdout.contains("skipped: 4 with an image that does not decode"), "{}", said.stdout);
        names_rows(&said, &BAD_FILES);
        bench.succeed(&["data", "convert", "clean", "from-clean", "--to", layout]);
        assert!(files(&bench.path("from-all")) == files(&bench.path("from-clean")), "{layout}");
    }
}

#[test]
fn a_set_with_damaged_images_is_relabeled_without_them() {
    let bench = Bench::empty();
    pairs(&bench, "all", true);
    pairs(&bench, "clean", false);
    let relabel = |set: &str, out: &str| {
        let line = ["data", "relabel", set, "--scorer", "nearest-art:style", "--keep_ties", "--out", out];
        bench.succeed(&line)
    };
    let (all, clean) = (relabel("all", "from-all"), relabel("clean", "from-clean"));
    names_rows(&all, &BAD_FILES);
    names_rows(&all, &["note: skipped 4 rows: 4 with an image that does not decode"]);
    assert_eq!(all.stdout.replace("from-all", "from-clean"), clean.stdout);
    let about: Value =
        serde_json::from_slice(&fs::read(bench.path("from-all/relabel.json")).unwrap()).unwrap();
    assert_eq!((&about["n_pairs"], &about["n_not_readable"]), (&Value::from(4), &Value::from(4)));
}

#[test]
fn damaged_images_have_no_score_and_the_others_that_of_their_own_prompt() {
    let bench = Bench::empty();
    images(&bench, "all", 0, &DAMAGED);
    images(&bench, "whole", 0, &[]);
    // One that no scorer takes, last in order.
    RgbImage::new(900, 2).save(bench.path("all/0008-0.png")).unwrap();
    RgbImage::new(40, 32).save(bench.path("whole/0008-0.png")).unwrap();
    bench.write("prompts.txt", format!("{}\ncat\n", CAPTIONS.join("\n")));
    let score = |images: &str, out: &str| {
        let line =
            ["score", images, "--prompts", "prompts.txt", "--scorer", "nearest-art:style", "--out", out];
        bench.succeed(&line)
    };
    let (all, _) = (score("all", "all.csv"), score("whole", "whole.csv"));
    let bad = ["0001-0.png", "0003-0.png", "0004-0.png", "0006-0.png"];
    names_rows(&all, &bad);
    names_rows(&all, &["note: skipped 4 of 9 images"]);
    let rows = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    let whole = rows("whole.csv").replace("whole/", "all/");
    let wanted = whole.lines().filter(|line| !bad.iter().any(|name| line.contains(name)));
    assert_eq!(rows("all.csv").lines().count(), 6);
    assert!(rows("all.csv").lines().take(5).eq(wanted.take(5)), "{}\n{whole}", rows("all.csv"));
    let none = bench.run(&["score", "all/0001-0.png", "--prompt", "cat", "--scorer", "nearest-art:style"]);
    assert!(none.code == 3 && none.stderr.contains("none of the images can be scored"), "{}", none.stderr);
}

#[test]
fn samples_with_a_damaged_image_are_left_out_of_a_comparison_for_both() {
    let bench = Bench::empty();
    images(&bench, "a", 0, &DAMAGED[..2]);
    images(&bench, "b", 1, &DAMAGED[2..]);
    bench.write("prompts.txt", CAPTIONS.join("\n"));
    let line = ["compare", "a", "b", "--prompts", "prompts.txt", "--scorer", "nearest-art", "--out", "out"];
    for _ in 0..2 {
        let said = bench.succeed(&line);
        names_rows(&said, &["0001-0.png", "0003-0.png", "0004-0.png", "0006-0.png"]);
        names_rows(&said, &["note: skipped 4 of 8 samples"]);
        let summary: Value =
            serde_json::from_slice(&fs::read(bench.path("out/summary.json")).unwrap()).unwrap();
        assert_eq!(summary["n_images"], 4, "{summary}");
    }
}

#[test]
fn a_malformed_line_of_metadata_costs_its_image_alone() {
    let bench = Bench::empty();
    images(&bench, "a", 0, &[]);
    images(&bench, "b", 1, &[]);
    let mut metadata = Vec::new();
    for (row, caption) in CAPTIONS.iter().enumerate() {
        metadata.extend(match row {
            2 => b"{\"file_name\": \"0002-0.png\", \"prompt\": \"caf\xe9\"}\n".to_vec(),
            5 => b"{\"file_name\": \"0005-0.png\", \"prompt\": \n".to_vec(),
            _ => {
                format!("{{\"file_name\": \"{row:04}-0.png\", \"prompt\": \"{caption}\", \"seed\": {row}}}\n")
                    .into()
            }
        });
    }
    bench.write("a/metadata.jsonl", &metadata);
    let said = bench.succeed(&["score", "a", "--scorer", "nearest-art:style", "--out", "scores.csv"]);
    names_rows(
        &said,
        &["line 3 has a byte that is not UTF-8", "line 6 is not valid JSON", "skipped 2 of 8 images"],
    );
    assert_eq!(fs::read_to_string(bench.path("scores.csv")).unwrap().lines().count(), 7);
}

#[test]
fn a_malformed_row_of_a_prompt_list_never_shifts_which_image_has_which_prompt() {
    let bench = Bench::empty();
    images(&bench, "numbered", 0, &[]);
    for row in 0..CAPTIONS.len() {
        bench.write(&format!("ordered/{}.png", (b'a' + row as u8) as char), image(row, 0, false));
    }
    let list = |bad: bool| {
        let line = |(row, caption): (usize, &&str)| match (bad, row) {
            (true, 2) => b"caf\xe9\n".to_vec(),
            _ => format!("{caption}\n").into_bytes(),
        };
        CAPTIONS.iter().enumerate().flat_map(line).collect::<Vec<u8>>()
    };
    bench.write("bad.txt", list(true));
    bench.write("good.txt", list(false));
    for (folder, name) in [("numbered", "0002-0.png"), ("ordered", "c.png")] {
        let score = |prompts: &str| {
            let out = format!("{folder}-{prompts}.csv");
            let line =
                ["score", folder, "--prompts", prompts, "--scorer", "nearest-art:style", "--out", &out];
            (bench.succeed(&line), fs::read_to_string(bench.path(&out)).unwrap())
        };
        let ((said, bad), (_, good)) = (score("bad.txt"), score("good.txt"));
        names_rows(
            &said,
            &["skipped 1 malformed row of bad.txt", "line 3 is not UTF-8", "skipped 1 of 8 images", name],
        );
        let scores = |text: &str| {
            text.lines().filter(|line| !line.contains(name)).map(str::to_owned).collect::<Vec<_>>()
        };
        let (bad, good) = (scores(&bad), scores(&good));
        assert_eq!(bad.len(), 8);
        // The scores of a batch may differ in their last digits by what else is in it.
        let prompt = |line: &String| line.split(',').take(2).map(str::to_owned).collect::<Vec<_>>();
        assert!(bad.iter().map(prompt).eq(good.iter().map(prompt)), "{bad:?} {good:?}");
    }
    images(&bench, "other", 1, &[]);
    let line =
        ["compare", "numbered", "other", "--prompts", "bad.txt", "--scorer", "nearest-art", "--out", "out"];
    let said = bench.succeed(&line);
    names_rows(&said, &["line 3 is not UTF-8"]);
    let summary: Value = serde_json::from_slice(&fs::read(bench.path("out/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["n_images"], 7, "{summary}");
}
