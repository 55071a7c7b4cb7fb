//! Sets of pairs as people have them on disk, whole and broken.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::error::Error;
use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use tastemaker_data::formats::{FORMATS, open};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, PairId, PairSource, Reason, Side};
use tastemaker_store::StoreError;
use tempfile::TempDir;

/// A one-color image whose shade tells which it is.
fn image(path: &Path, shade: u8) {
    RgbImage::from_pixel(4, 3, Rgb([shade; 3])).save(path).unwrap();
}

fn row(image_0: &str, image_1: &str, prompt: &str, prefer: (bool, bool)) -> String {
    let (prefer_0, prefer_1) = prefer;
    let row = serde_json::json!({
        "image_0": image_0, "image_1": image_1, "prompt": prompt, "prefer_0": prefer_0, "prefer_1": prefer_1,
    });
    row.to_string()
}

/// A folder with images 1.png to 3.png and a list.
fn listed(list: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for shade in 1..=3 {
        image(&folder.path().join(format!("{shade}.png")), shade);
    }
    fs::write(folder.path().join("metadata.jsonl"), list).unwrap();
    folder
}

fn complaint(folder: &TempDir) -> (DataError, String) {
    let error = open(folder.path()).expect_err("an error");
    let text = error.to_string();
    (error, text)
}

/// What was skipped: id, reason and detail of each row.
fn skipped(pairs: &PairSet) -> Vec<(u64, Reason, &str)> {
    pairs.skipped().iter().map(|row| (row.id.0, row.reason, &*row.detail)).collect()
}

fn shades(source: &dyn PairSource, position: usize) -> (u8, u8) {
    let shade = |side| source.image(position, side).unwrap().get_pixel(0, 0).0[0];
    (shade(Side::Winner), shade(Side::Loser))
}

mod jsonl {
    use super::*;

    #[test]
    fn the_preferred_image_wins_whichever_column_it_is_in() {
        let folder = listed(
            [row("1.png", "2.png", "a fox", (true, false)), row("1.png", "2.png", "a cat", (false, true))]
                .join("\n"),
        );
        let pairs = open(folder.path()).unwrap();
        assert_eq!((shades(&pairs, 0), shades(&pairs, 1)), ((1, 2), (2, 1)));
        assert_eq!((pairs.caption(0), pairs.caption(1)), ("a fox", "a cat"));
    }

    #[test]
    fn ties_are_skipped_and_counted_and_move_no_id() {
        let folder = listed(
            [
                row("1.png", "2.png", "both", (true, true)),
                row("1.png", "2.png", "neither", (false, false)),
                String::new(),
                row("1.png", "3.png", "kept", (true, false)),
            ]
            .join("\r\n"),
        );
        let pairs = open(folder.path()).unwrap();
        assert_eq!((pairs.len(), pairs.n_ties()), (1, 2));
        assert_eq!((pairs.id(0), pairs.caption(0)), (PairId(2), "kept"));
    }

    #[test]
    fn only_ties_is_an_error_that_says_so() {
        let folder = listed(row("1.png", "2.png", "a", (true, true)));
        let (error, text) = complaint(&folder);
        assert!(matches!(error, DataError::Empty { .. }));
        assert!(text.ends_with("all its rows are skipped: 1 tie"), "{text}");
    }

    #[test]
    fn an_empty_list_is_an_error() {
        assert!(matches!(complaint(&listed("\n")).0, DataError::Empty { .. }));
    }

    #[test]
    fn a_bad_row_is_skipped_by_name_and_the_others_keep_their_ids() {
        let good = row("1.png", "2.png", "a", (true, false));
        for (bad, expected) in [
            ("{\"image_0\": \"1.png\", \"prompt\": \"a\"}", "nothing as label"),
            ("{\"image_0\": \"1.p", "EOF while parsing a string"),
            ("[1, 2]", "line 3 is a list; wanted an object"),
            (
                r#"{"image_0":"1.png","image_1":"2.png","prompt":7,"prefer_0":true,"prefer_1":false}"#,
                "a number as caption; wanted text",
            ),
            (
                r#"{"image_0":"1.png","image_1":"2.png","prompt":"a","prefer_0":[],"prefer_1":0}"#,
                "a list as label; wanted a number, true or false",
            ),
        ] {
            let folder = listed(format!("{good}\n\n{bad}\n{good}"));
            let pairs = open(folder.path()).unwrap();
            assert_eq!((pairs.id(0), pairs.id(1)), (PairId(0), PairId(2)));
            let [(1, Reason::BadRow, detail)] = skipped(&pairs)[..] else { panic!("{:?}", pairs.skipped()) };
            assert!(detail.contains(expected), "{detail}");
        }
    }

    #[test]
    fn a_row_that_is_not_utf8_is_named() {
        let mut list = row("1.png", "2.png", "a", (true, false)).into_bytes();
        list.extend(b"\n{\"prompt\": \"caf\xe9\"}");
        let folder = listed(list);
        let pairs = open(folder.path()).unwrap();
        let [(1, Reason::BadRow, detail)] = skipped(&pairs)[..] else { panic!("{:?}", pairs.skipped()) };
        assert!(detail.contains("not UTF-8 at column 16"), "{detail}");
    }

    #[test]
    fn a_line_and_a_caption_without_end_are_skipped() {
        let good = row("1.png", "2.png", "a", (true, false));
        let long = row("1.png", "2.png", &"a".repeat(100_000), (true, false));
        let endless = "x".repeat(40 << 20);
        let folder = listed(format!("{good}\n{endless}\n{long}\n{good}"));
        let pairs = open(folder.path()).unwrap();
        assert_eq!((pairs.len(), pairs.id(1)), (2, PairId(3)));
        let reasons: Vec<Reason> = skipped(&pairs).iter().map(|row| row.1).collect();
        assert_eq!(reasons, [Reason::BadRow, Reason::LongCaption]);
    }

    #[test]
    fn rows_with_missing_images_are_skipped_and_named() {
        let rows = [
            row("1.png", "7.png", "a", (true, false)),
            row("1.png", "2.png", "b", (true, false)),
            row("8.png", "9.png", "c", (true, false)),
        ];
        let folder = listed(rows.join("\n"));
        let pairs = open(folder.path()).unwrap();
        assert_eq!((pairs.len(), pairs.caption(0)), (1, "b"));
        let [(0, Reason::MissingImage, first), (2, Reason::MissingImage, second)] = skipped(&pairs)[..]
        else {
            panic!("{:?}", pairs.skipped())
        };
        assert!(first.ends_with("7.png") && second.ends_with("8.png"), "{first} {second}");
    }

    #[test]
    fn a_set_with_all_images_elsewhere_says_so() {
        let folder = listed(row("7.png", "2.png", "a", (true, false)));
        let (error, text) = complaint(&folder);
        assert!(matches!(error, DataError::Empty { .. }), "{error:?}");
        assert!(text.contains("1 with an image that is not there (row 0: "), "{text}");
    }

    #[test]
    fn an_image_that_does_not_decode_is_named_with_its_role_and_row() {
        let folder = listed(row("1.png", "2.png", "a", (true, false)));
        let whole = fs::read(folder.path().join("2.png")).unwrap();
        fs::write(folder.path().join("2.png"), &whole[..whole.len() / 2]).unwrap();
        let error = open(folder.path()).unwrap().image(0, Side::Loser).unwrap_err();
        assert!(error.to_string().starts_with("the loser of row 0 does not decode"), "{error}");
        assert!(error.source().is_some());
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        let folder = listed(row("1.png", "2.png", "a", (true, false)));
        let path = folder.path().join("1.png");
        let mut bytes = fs::read(&path).unwrap();
        // A PNG states its width at byte 16; the chunk's checksum covers bytes 12..29.
        bytes[16..20].copy_from_slice(&2_000_000_000_u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let error = open(folder.path()).unwrap().image(0, Side::Winner).unwrap_err();
        let reason = error.source().unwrap().to_string().to_lowercase();
        assert!(reason.contains("limit") || reason.contains("dimension"), "{reason}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(
                crc ^ u32::from(byte),
                |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
            )
        })
    }

    #[test]
    fn transparency_is_dropped_not_blended() {
        let folder = listed(row("1.png", "2.png", "a", (true, false)));
        RgbaImage::from_pixel(2, 2, Rgba([200, 100, 50, 0])).save(folder.path().join("1.png")).unwrap();
        let winner = open(folder.path()).unwrap().image(0, Side::Winner).unwrap();
        assert_eq!(winner.get_pixel(0, 0).0, [200, 100, 50]);
    }

    #[test]
    fn the_file_itself_opens_like_its_folder() {
        let folder = listed(row("1.png", "2.png", "a", (true, false)));
        let by_file = open(folder.path().join("metadata.jsonl")).unwrap();
        assert_eq!(by_file.fingerprint(), open(folder.path()).unwrap().fingerprint());
    }

    #[test]
    fn the_fingerprint_follows_rankings_captions_and_files_but_not_the_folders_place() {
        let list = |prefer, prompt| listed(row("1.png", "2.png", prompt, prefer));
        let print = |folder: &TempDir| open(folder.path()).unwrap().fingerprint();
        let folder = list((true, false), "a");
        let original = print(&folder);
        assert_eq!(original, print(&list((true, false), "a")));
        assert_ne!(original, print(&list((false, true), "a")));
        assert_ne!(original, print(&list((true, false), "b")));
        RgbImage::from_fn(60, 50, |x, y| Rgb([x as u8, y as u8, 0]))
            .save(folder.path().join("1.png"))
            .unwrap();
        assert_ne!(original, print(&folder));
    }
}

mod folders {
    use super::*;

    fn pair(folder: &TempDir, name: &str, caption: Option<&[u8]>) {
        for (side, shade) in [("w", 10), ("l", 20)] {
            fs::create_dir_all(folder.path().join(side)).unwrap();
            image(&folder.path().join(side).join(format!("{name}.png")), shade);
        }
        if let Some(caption) = caption {
            fs::write(folder.path().join("w").join(format!("{name}.txt")), caption).unwrap();
        }
    }

    #[test]
    fn names_pair_up_in_sorted_order() {
        let folder = tempfile::tempdir().unwrap();
        pair(&folder, "zebra", Some(b"a zebra\n"));
        pair(&folder, "ant", Some(b"an ant"));
        let pairs = open(folder.path()).unwrap();
        assert_eq!((pairs.caption(0), pairs.caption(1)), ("an ant", "a zebra"));
        assert_eq!((pairs.id(1), shades(&pairs, 1)), (PairId(1), (10, 20)));
    }

    #[test]
    fn the_losers_caption_serves_too_if_it_agrees() {
        let folder = tempfile::tempdir().unwrap();
        pair(&folder, "a", None);
        fs::write(folder.path().join("l/a.txt"), "a fox").unwrap();
        assert_eq!(open(folder.path()).unwrap().caption(0), "a fox");
        fs::write(folder.path().join("w/a.txt"), "a cat").unwrap();
        assert!(complaint(&folder).1.contains("1 with two different captions"));
    }

    #[test]
    fn broken_pairs_are_skipped_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d"] {
            pair(&folder, name, (name != "c").then_some(b"x"));
        }
        fs::remove_file(folder.path().join("l/a.png")).unwrap();
        fs::remove_file(folder.path().join("w/b.png")).unwrap();
        let pairs = open(folder.path()).unwrap();
        assert_eq!((pairs.len(), pairs.id(0), pairs.place(PairId(3))), (1, PairId(3), "pair d".into()));
        let skipped = skipped(&pairs);
        let reasons: Vec<(u64, Reason)> = skipped.iter().map(|row| (row.0, row.1)).collect();
        let wanted = [(0, Reason::NoCounterpart), (1, Reason::NoCounterpart), (2, Reason::NoCaption)];
        assert_eq!(reasons, wanted);
        assert_eq!((skipped[0].2, skipped[1].2), ("there is no l/a", "there is no w/b"));
    }

    #[test]
    fn a_caption_that_is_not_utf8_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        pair(&folder, "a", Some(b"caf\xe9"));
        let (_, text) = complaint(&folder);
        assert!(
            text.contains("1 malformed row (pair a: ") && text.contains("a.txt is not UTF-8 at byte 3"),
            "{text}"
        );
    }
}

#[test]
fn a_missing_path_is_told_apart_from_an_unknown_layout() {
    let folder = tempfile::tempdir().unwrap();
    let missing = open(folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, DataError::Store(StoreError::Missing { .. })));
    fs::write(folder.path().join("notes.md"), "x").unwrap();
    let (error, text) = complaint(&folder);
    assert!(matches!(error, DataError::UnknownFormat { .. }));
    assert!(FORMATS.iter().all(|format| text.contains(format.marks)), "{text}");
}
