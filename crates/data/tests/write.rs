//! Sets written in other layouts are the same sets.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use tastemaker_data::formats::{Columns, OpenSettings, open, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::write::{ExtraColumn, Kind, Row, Shards, Value, WRITERS, Writer, pick_a_pic};
use tastemaker_data::{PairSource, Reason, Side, Skipped};
use tastemaker_store::atomic::NewFolder;
use tastemaker_store::tree::Location;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

/// An image of one color.
fn png(shade: u8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    RgbImage::from_pixel(4, 3, Rgb([shade; 3])).write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

/// Caption, encoded images and soft label of a pair.
type Contents<'a> = (&'a str, [Vec<u8>; 2], Option<f64>);

/// Those of every pair.
fn contents(set: &PairSet) -> Vec<Contents<'_>> {
    let images = |at| Side::BOTH.map(|side| set.encoded(at, side).unwrap());
    (0..set.len()).map(|at| (set.caption(at), images(at), set.soft_label(at))).collect()
}

#[test]
fn what_is_written_reads_back_byte_for_byte() {
    for (name, writer) in
        ["images", "scored"].into_iter().flat_map(|name| WRITERS.iter().map(move |w| (name, w)))
    {
        let set = open(golden(&format!("{name}.parquet"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let mut n = 0;
        (writer.write)(&set, &target, &mut || n += 1).unwrap();
        assert_eq!((contents(&open(&target).unwrap()), n), (contents(&set), set.len()), "{}", writer.name);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{} leaves nothing beside", writer.name);
        // Whether a place may be replaced is the commands' question; here it is, as a whole.
        fs::write(target.join("left.over"), "").unwrap();
        (writer.write)(&set, &target, &mut || ()).unwrap();
        assert!(!target.join("left.over").exists(), "{}", writer.name);
        assert_eq!(contents(&open(&target).unwrap()), contents(&set), "{}", writer.name);
    }
}

/// `golden/data/written.parquet` is this file, which the datasets package was seen to read.
#[test]
fn shards_are_those_that_the_published_package_reads() {
    let set = open(golden("images.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    pick_a_pic(&set, &folder.path().join("out"), &mut || ()).unwrap();
    let written = fs::read(folder.path().join("out/data/train-00000-of-00001.parquet")).unwrap();
    assert_eq!(written, fs::read(golden("written.parquet")).unwrap());
}

#[test]
fn pairs_with_an_image_that_does_not_decode_are_left_out_by_name_in_every_layout() {
    let page = b"<!DOCTYPE html><html>404</html>".to_vec();
    for (name, bytes) in [("page", page), ("empty", Vec::new()), ("cut", png(1)[..40].to_vec())] {
        for Writer { name: layout, write, .. } in WRITERS {
            let folder = tempfile::tempdir().unwrap();
            let from = folder.path().join("from");
            for (stem, side) in [("a", "w"), ("a", "l"), ("b", "w"), ("b", "l"), ("c", "w"), ("c", "l")] {
                fs::create_dir_all(from.join(side)).unwrap();
                fs::write(from.join(side).join(format!("{stem}.txt")), stem).unwrap();
                let is_bad = (stem, side) == ("b", "l");
                let image = if is_bad { bytes.clone() } else { png(1) };
                fs::write(from.join(side).join(format!("{stem}.png")), image).unwrap();
            }
            let set = open(&from).unwrap();
            let target = folder.path().join("to");
            let mut n = 0;
            let written = write(&set, &target, &mut || n += 1).unwrap();
            let [Skipped { id, reason, detail }] = written.skipped.as_slice() else { panic!("{written:?}") };
            assert_eq!((written.n_pairs, n, *id, *reason), (2, 3, set.id(1), Reason::BadImage), "{name}");
            assert!(detail.contains("its loser does not decode") && detail.ends_with("b.png"), "{detail}");
            let captions =
                |set: &PairSet| (0..set.len()).map(|at| set.caption(at).to_owned()).collect::<Vec<_>>();
            assert_eq!(captions(&open(&target).unwrap()), ["a", "c"], "{name} in {layout}");
        }
    }
}

#[test]
fn a_set_of_which_no_pair_can_be_read_leaves_no_folder_behind() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    for side in ["w", "l"] {
        fs::create_dir_all(from.join(side)).unwrap();
        fs::write(from.join(side).join("b.png"), b"no image").unwrap();
        fs::write(from.join(side).join("b.txt"), "b").unwrap();
    }
    let set = open(&from).unwrap();
    for Writer { write, .. } in WRITERS {
        let text = write(&set, &folder.path().join("to"), &mut || ()).unwrap_err().to_string();
        assert!(text.contains("1 with an image that does not decode") && text.contains("b.png"), "{text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn rows_keep_their_labels_and_whatever_else_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let columns = ["a:b_0", "a:b_1"].map(|name| ExtraColumn::new(name, Kind::Number)).to_vec();
    let row = |labels: [f64; 2], has_label, extra: [f64; 2]| Row {
        images: [png(1), png(2)],
        labels,
        caption: "a fox".into(),
        has_label,
        extra: extra.map(Value::Number).to_vec(),
    };
    for _ in 0..2 {
        // The second time it takes the place of the first.
        let mut shards = Shards::begin(NewFolder::begin(&path).unwrap(), "", columns.clone());
        shards.push(row([0.0, 1.0], true, [1.0, 3.0])).unwrap();
        shards.push(row([0.5, 0.5], false, [2.0, 2.0])).unwrap();
        shards.push(row([0.5, 0.5], true, [5.0, 2.0])).unwrap();
        shards.finish().unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let set = open(&path).unwrap();
    assert_eq!((set.len(), set.n_ties()), (1, 2));
    assert_eq!(set.encoded(0, Side::Winner).unwrap(), png(2));
    let named =
        Columns { score_0: Some("a:b_0".into()), score_1: Some("a:b_1".into()), ..Columns::default() };
    let settings = OpenSettings { columns: named, ties: true, ..OpenSettings::default() };
    let set = open_with(&Location::local(&path).unwrap(), &settings).unwrap();
    assert_eq!((0..3).map(|at| set.is_tie(at)).collect::<Vec<_>>(), [false, true, true]);
    assert!((set.soft_label(0).unwrap() - 0.880_797).abs() < 1e-6);
    assert_eq!(set.encoded(2, Side::Winner).unwrap(), png(1), "a tie stands as it is listed");
}
