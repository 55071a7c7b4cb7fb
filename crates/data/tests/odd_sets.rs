//! Sets with files that are passed over, rows that are wrong, and images that say what generated them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod support;

use std::fs;
use std::io::Cursor;

use serde_json::json;
use support::{open_mapped, pairs, png, skipped};
use tastemaker_data::formats::open;
use tastemaker_data::write::WRITERS;
use tastemaker_data::{PairSource, Reason};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// A PNG file as AUTOMATIC1111's web UI writes it.
fn generated(shade: u8, prompt: &str) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.add_itxt_chunk("parameters".into(), format!("{prompt}\nSteps: 20")).unwrap();
    encoder.write_header().unwrap().write_image_data(&[shade]).unwrap();
    bytes.into_inner()
}

#[test]
fn captions_have_both_spellings_and_hidden_files_are_none() {
    let (one, two) = (png(1), png(2));
    let set = folder(&[
        ("w/fox.png", &one),
        ("l/fox.png", &two),
        ("w/fox.caption", b"a fox"),
        ("w/hen.png", &one),
        ("l/hen.png", &two),
        ("l/hen.txt", b"a hen"),
        ("l/hen.caption", b"another spelling"),
        ("w/._fox.png", &one),
        ("l/.ipynb_checkpoints/fox.png", &two),
        ("w/.DS_Store", b""),
    ]);
    let set = open(set.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "a fox"), (1, 1, 2, "a hen")]);
    assert!(set.skipped().is_empty(), "{:?}", set.skipped());
}

#[test]
fn images_of_other_formats_are_skipped_by_name_and_move_no_id() {
    let (one, two) = (png(1), png(2));
    let others: &[(&str, &[u8])] = &[
        ("w/a.avif", b"x"),
        ("l/a.avif", b"x"),
        ("w/fox.png", &one),
        ("l/fox.gif", b"GIF89a"),
        ("w/hen.png", &one),
    ];
    let kept: &[(&str, &[u8])] = &[("l/hen.png", &two), ("w/hen.txt", b"a hen")];
    let set = folder(&[others, kept].concat());
    let set = open(set.path()).unwrap();
    assert_eq!(pairs(&set), [(1, 1, 2, "a hen")]);
    assert_eq!(skipped(&set), [(0, Reason::OtherFormat), (2, Reason::OtherFormat)]);
    assert_eq!(&*set.skipped()[0].detail, "l/fox.gif is not read; wanted PNG, JPEG or WebP");
    assert_eq!(set.place(set.skipped()[1].id), "pair a");

    let set = folder(&[
        ("1.png", &one),
        ("1.txt", b"x"),
        ("1-rejected.png", &two),
        ("2.png", &one),
        ("2-rejected.heic", b""),
    ]);
    let set = open(set.path()).unwrap();
    assert_eq!((pairs(&set), skipped(&set)), (vec![(0, 1, 2, "x")], vec![(1, Reason::OtherFormat)]));
}

#[test]
#[cfg(unix)]
fn links_in_a_circle_neither_hang_nor_multiply_pairs() {
    let (one, two) = (png(1), png(2));
    let set = folder(&[
        ("1.png", &one),
        ("1-rejected.png", &two),
        ("1.txt", b"a"),
        ("b/2.png", &one),
        ("b/2-rejected.png", &two),
        ("b/2.txt", b"b"),
    ]);
    for (to, link) in [(".", "loop"), ("..", "b/up"), ("b", "also"), ("../b", "b/self")] {
        std::os::unix::fs::symlink(to, set.path().join(link)).unwrap();
    }
    assert_eq!(open(set.path()).unwrap().len(), 2);
}

#[test]
fn a_caption_that_cannot_be_read_costs_its_row_alone() {
    let (one, two) = (png(1), png(2));
    let set = folder(&[
        ("w/fox.png", &one),
        ("l/fox.png", &two),
        ("w/fox.txt", b"a f\xf6x"),
        ("w/hen.png", &one),
        ("l/hen.png", &two),
        ("w/hen.txt", b"a hen"),
    ]);
    let set = open(set.path()).unwrap();
    assert_eq!((pairs(&set), skipped(&set)), (vec![(1, 1, 2, "a hen")], vec![(0, Reason::BadRow)]));
    assert!(set.skipped()[0].detail.ends_with("fox.txt is not UTF-8 at byte 3; save it as UTF-8"));
}

#[test]
fn a_row_of_another_kind_costs_itself_alone_and_says_where_it_is() {
    let row = |first: &str| json!({"winner": first, "loser": "2.png", "caption": "a"}).to_string();
    let good = row("1.png");
    let bad =
        ["{\"winner\": 1, bad}", "[1, [2]]", "\"a \\\" text]\"", "-1.5e3", "null", "{\"winner\": \"1.png\"}"];
    for (name, list, wanted) in [
        (
            "metadata.jsonl",
            format!("{good}\n\n{}\n{good}\n", bad.join("\n")),
            [
                "line 3 is not valid JSON: key must be a string at column 15",
                "line 4 is a list; wanted an object",
            ],
        ),
        (
            "metadata.json",
            format!("[{good}, {}, {good}]", bad.join(" , ")),
            ["it is not valid JSON: key must be a string at column 15", "a list; wanted an object"],
        ),
    ] {
        let set = folder(&[("1.png", &png(1)), ("2.png", &png(2)), (name, list.as_bytes())]);
        let set = open(set.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pairs(&set), [(0, 1, 2, "a"), (7, 1, 2, "a")], "{name}");
        assert_eq!(skipped(&set).len(), bad.len());
        for (row, wanted) in set.skipped().iter().zip(wanted) {
            assert_eq!(&*row.detail, wanted, "{name}");
        }
    }
    let list = "winner,loser,caption\n1.png,2.png,a\n1.png,\"2.png,a\n1.png,2.png,b\n1.png\",2.png,x\n1.png,2.png,c\n";
    let set = folder(&[("1.png", &png(1)), ("2.png", &png(2)), ("metadata.csv", list.as_bytes())]);
    let set = open(set.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "a"), (2, 1, 2, "c")]);
    let wanted = "4 cells; wanted 3, as in the first line; it goes from line 3 to line 5: is a quote open?";
    assert_eq!(&*set.skipped()[0].detail, wanted);
}

#[test]
fn has_label_is_true_or_false_a_number_or_text_of_either() {
    let row = |has_label: serde_json::Value| json!({"jpg_0": "1.png", "jpg_1": "2.png", "label_0": 1, "label_1": 0, "has_label": has_label, "caption": "a"});
    let judged =
        [json!(true), json!(1), json!(1.0), json!("True"), json!("1"), json!("yes"), json!(null), json!("")];
    let unjudged =
        [json!(false), json!(0), json!("false"), json!("False"), json!("0"), json!("0.0"), json!("no")];
    let rows: Vec<String> = judged
        .iter()
        .chain(&unjudged)
        .chain(&[json!("maybe")])
        .map(|value| row(value.clone()).to_string())
        .collect();
    let set =
        folder(&[("1.png", &png(1)), ("2.png", &png(2)), ("metadata.jsonl", rows.join("\n").as_bytes())]);
    let set = open_mapped(set.path(), &[("caption", "caption")]).unwrap();
    assert_eq!((set.len(), set.n_ties()), (judged.len(), unjudged.len()));
    assert_eq!(&*set.skipped().last().unwrap().detail, "has_label: the label \"maybe\"; wanted a number");
}

#[test]
fn pairs_made_with_and_without_a_lora_have_one_caption_and_keep_their_prompts() {
    let (one, two) = (generated(1, "a fox, <lora:snow:0.8>"), generated(2, "a fox"));
    let set = folder(&[("w/1.png", &one), ("l/1.png", &two), ("w/2.png", &two), ("l/2.png", &two)]);
    let set = open(set.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "a fox"), (1, 2, 2, "a fox")]);
    assert_eq!(set.original_prompts(0), Some(["a fox, <lora:snow:0.8>", "a fox"]));
    assert_eq!(set.original_prompts(1), None);

    let out = tempfile::tempdir().unwrap();
    for writer in WRITERS {
        let to = out.path().join(writer.name);
        (writer.write)(&set, &to, &mut || ()).unwrap();
        assert_eq!(pairs(&open(&to).unwrap()), pairs(&set), "{}", writer.name);
        let again = open(&to).unwrap();
        assert_eq!(again.original_prompts(0), Some(["a fox, <lora:snow:0.8>", "a fox"]), "{}", writer.name);
    }
}

#[test]
fn an_image_that_is_none_says_what_it_is() {
    let list = json!({"winner": "1.png", "loser": "2.png", "caption": "a"}).to_string();
    for (bytes, wanted) in [
        (&b""[..], "the file is empty"),
        (b"<!DOCTYPE html><html>", "an HTML page; wanted PNG, JPEG or WebP"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a pointer of Git LFS, whose file was not fetched; wanted",
        ),
        (b"GIF89a\x01\0\x01\0\0\0\0", "a GIF image; wanted PNG, JPEG or WebP"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image; wanted PNG, JPEG or WebP"),
        (b"nothing", "no image of a kind we know; wanted PNG, JPEG or WebP"),
    ] {
        let set = folder(&[("1.png", bytes), ("2.png", &png(2)), ("metadata.jsonl", list.as_bytes())]);
        let error = open(set.path()).unwrap().image(0, tastemaker_data::Side::Winner).unwrap_err();
        let problem = error.skips().unwrap();
        assert!(problem.contains(wanted), "{problem}");
    }
}
