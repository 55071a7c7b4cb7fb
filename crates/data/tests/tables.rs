//! Rows in every container, columns by every convention.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{open_mapped, pairs, png, skipped};
use tastemaker_data::formats::{CONVENTIONS, OpenSettings, Shape, open, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, Label, PairSource, Reason};
use tastemaker_store::StoreError;
use tastemaker_store::tree::Location;
use tempfile::TempDir;

/// A folder with images 1.png to 5.png and a list.
fn listed(name: &str, list: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for shade in 1..=5 {
        fs::write(folder.path().join(format!("{shade}.png")), png(shade)).unwrap();
    }
    fs::write(folder.path().join(name), list).unwrap();
    folder
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn array(rows: &[Value]) -> String {
    serde_json::to_string_pretty(rows).unwrap()
}

/// Rows as CSV, columns those of the first.
fn csv(rows: &[Value]) -> String {
    let columns: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    let mut text = columns.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
    for row in rows {
        let cells = columns.iter().map(|name| match &row[name.as_str()] {
            Value::String(text) => format!("\"{text}\""),
            other => other.to_string(),
        });
        text += &format!("\n{}", cells.collect::<Vec<_>>().join(","));
    }
    text
}

/// Rows as text.
type List = fn(&[Value]) -> String;

const LISTS: [(&str, List); 3] = [("metadata.jsonl", lines), ("metadata.json", array), ("metadata.csv", csv)];

#[test]
fn every_convention_works_in_every_list() {
    for known in CONVENTIONS {
        let caption = known.captions[0];
        let rows = match known.columns {
            Shape::Labeled { images: [a, b], labels: [c, d] } => vec![
                json!({"user": 7, a: "1.png", b: "2.png", c: 1, d: 0, caption: "a fox"}),
                json!({"user": 7, a: "3.png", b: "4.png", c: 0.25, d: 0.75, caption: "a cat"}),
            ],
            Shape::Ranked { winner, loser } => vec![
                json!({winner: "1.png", loser: "2.png", caption: "a fox", "score": 1.5}),
                json!({winner: "4.png", loser: "3.png", caption: "a cat", "score": 1.5}),
            ],
            Shape::Single { image, label } => vec![
                json!({image: "1.png", label: true, caption: "a fox"}),
                json!({image: "4.png", label: true, caption: "a cat"}),
                json!({image: "3.png", label: false, caption: "a cat"}),
                json!({image: "2.png", label: false, caption: "a fox"}),
            ],
            Shape::Liked { image } => panic!("{image} without labels is no convention of pairs"),
            Shape::Ranking { images, ranks, lowest_wins } => vec![
                json!({images: ["1.png", "2.png"], ranks: if lowest_wins { [1, 2] } else { [1, 0] }, caption: "a fox"}),
                json!({images: ["3.png", "4.png"], ranks: if lowest_wins { [2, 1] } else { [0, 1] }, caption: "a cat"}),
            ],
        };
        for (name, list) in LISTS {
            if name.ends_with("csv") && matches!(known.columns, Shape::Ranking { .. }) {
                continue;
            }
            let folder = listed(name, list(&rows));
            let set = open(folder.path()).unwrap_or_else(|error| panic!("{} in {name}: {error}", known.name));
            assert_eq!(pairs(&set), [(0, 1, 2, "a fox"), (1, 4, 3, "a cat")], "{} in {name}", known.name);
        }
    }
}

#[test]
fn a_mapping_names_columns_of_any_table() {
    let rows =
        [json!({"left": "1.png", "right": "2.png", "l": "0", "r": "1", "words": "a fox", "prompt": "no"})];
    let mapping =
        [("image_0", "left"), ("image_1", "right"), ("label_0", "l"), ("label_1", "r"), ("caption", "words")];
    for (name, list) in LISTS {
        let folder = listed(name, list(&rows));
        assert_eq!(pairs(&open_mapped(folder.path(), &mapping).unwrap()), [(0, 2, 1, "a fox")], "{name}");
        let ranked = [("winner", "right"), ("loser", "left")];
        assert_eq!(pairs(&open_mapped(folder.path(), &ranked).unwrap()), [(0, 2, 1, "no")], "{name}");
        let wrong = open_mapped(folder.path(), &[("winner", "rihgt"), ("loser", "left")]).unwrap_err();
        let text = wrong.to_string();
        assert!(text.contains("has the columns left, right, l, r, words, prompt"), "{text}");
        assert!(text.contains("did you mean \"right\"?"), "{text}");
    }
}

#[test]
fn a_table_of_unknown_columns_says_what_it_has() {
    for (name, list) in LISTS {
        let folder = listed(name, list(&[json!({"a": 1, "b": 2})]));
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, DataError::Columns { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("has the columns a, b: no convention we know"), "{error}");
    }
}

#[test]
fn a_row_that_nobody_judged_is_skipped_like_a_tie() {
    let row = |has_label: bool| {
        json!({"jpg_0": "1.png", "jpg_1": "2.png", "label_0": 1, "label_1": 0,
        "has_label": has_label, "caption": "a"})
    };
    let folder = listed("metadata.jsonl", lines(&[row(false), row(true)]));
    let set = open(folder.path()).unwrap();
    assert_eq!((pairs(&set), skipped(&set)), (vec![(1, 1, 2, "a")], vec![(0, Reason::Tie)]));
    assert!(set.skipped()[0].detail.contains("has_label"));
}

#[test]
fn an_empty_caption_is_a_caption_and_a_missing_one_is_none() {
    let row = |caption: Value| json!({"chosen": "1.png", "rejected": "2.png", "prompt": caption});
    let rows = [row(Value::Null), row("".into()), row(7.into())];
    let absent = json!({"chosen": "1.png", "rejected": "2.png"});
    let folder = listed("metadata.jsonl", lines(&[&[absent], rows.as_slice()].concat()));
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(2, 1, 2, "")]);
    let wanted = [(0, Reason::NoCaption), (1, Reason::NoCaption), (3, Reason::BadRow)];
    assert_eq!(skipped(&set), wanted);
}

#[test]
fn single_images_pair_up_within_their_caption_in_order() {
    let row = |image: u8, label: i8, caption: &str| json!({"image": format!("{image}.png"), "label": label, "caption": caption});
    let rows = [
        row(1, 1, "a"),
        row(2, 1, "a"),
        row(3, 0, "b"),
        row(4, -1, "a"),
        row(5, 0, "a"),
        row(5, 2, "a"),
        row(1, 1, "a"),
    ];
    let folder = listed("metadata.jsonl", lines(&rows));
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 4, "a"), (1, 2, 5, "a")]);
    let wanted = [(2, Reason::NoCounterpart), (5, Reason::BadRow), (6, Reason::NoCounterpart)];
    assert_eq!(skipped(&set), wanted);
}

/// Opens a set whose rows of single images stay what they are.
fn open_unpaired(path: &Path) -> Result<PairSet, DataError> {
    open_with(&Location::local(path).unwrap(), &OpenSettings { unpaired: true, ..OpenSettings::default() })
}

fn labels(set: &PairSet) -> Vec<Option<Label>> {
    (0..set.len()).map(|position| set.label(position)).collect()
}

#[test]
fn single_images_stay_what_they_are_where_that_is_asked_for() {
    let row = |image: u8, label: i8, caption: &str| json!({"image": format!("{image}.png"), "label": label, "caption": caption});
    let rows =
        [row(1, 1, "a"), row(2, 1, "a"), row(9, 0, "b"), row(4, -1, "b"), row(5, 2, "a"), row(1, 0, "c")];
    for (name, list) in LISTS {
        let folder = listed(name, list(&rows));
        let set = open_unpaired(folder.path()).unwrap();
        assert_eq!(pairs(&set), [(0, 1, 1, "a"), (1, 2, 2, "a"), (3, 4, 4, "b"), (5, 1, 1, "c")], "{name}");
        let (liked, disliked) = (Some(Label::Liked), Some(Label::Disliked));
        assert_eq!(labels(&set), [liked, liked, disliked, disliked], "{name}");
        assert_eq!(skipped(&set), [(2, Reason::MissingImage), (4, Reason::BadRow)], "{name}");
        assert_eq!(set.place(set.id(2)), "row 3");
    }
}

#[test]
fn diffusion_ktos_own_annotations_of_pick_a_pic_are_read() {
    let list = "file_name,caption,split\n1.png,a fox,exclusive_win\n2.png,a fox,intersections\n3.png,a cat,exclusive_lose\n\
                4.png,a cat,drawn\n";
    let folder = listed("train_processed_v3.csv", list);
    let set = open_unpaired(&folder.path().join("train_processed_v3.csv")).unwrap();
    assert_eq!(labels(&set), [Label::Liked, Label::Liked, Label::Disliked].map(Some));
    assert_eq!(skipped(&set), [(3, Reason::BadRow)]);
}

#[test]
fn single_images_of_one_label_are_a_set_and_labels_are_in_its_fingerprint() {
    let open_all = |label: i8| {
        let rows = [1, 2].map(|i| json!({"image": format!("{i}.png"), "label": label, "caption": "a"}));
        let folder = listed("metadata.csv", csv(&rows));
        assert!(matches!(open(folder.path()), Err(DataError::Empty { .. })));
        let set = open_unpaired(folder.path()).unwrap();
        (labels(&set), set.fingerprint())
    };
    let ((liked, print), (disliked, other)) = (open_all(1), open_all(0));
    assert_eq!((liked, disliked), (vec![Some(Label::Liked); 2], vec![Some(Label::Disliked); 2]));
    assert_ne!(print, other);
}

#[test]
fn labels_stay_with_their_images_when_rows_are_excluded() {
    let rows = [1, 0, 1, 0].into_iter().zip(1..);
    let rows: Vec<Value> =
        rows.map(|(label, i)| json!({"image": format!("{i}.png"), "label": label, "caption": "a"})).collect();
    let folder = listed("metadata.jsonl", lines(&rows));
    let mut set = open_unpaired(folder.path()).unwrap();
    set.exclude(&[set.id(0), set.id(3)].into(), "bad").unwrap();
    assert_eq!(pairs(&set), [(1, 2, 2, "a"), (2, 3, 3, "a")]);
    assert_eq!(labels(&set), [Some(Label::Disliked), Some(Label::Liked)]);
}

#[test]
fn pairs_stay_pairs_whatever_is_asked_for() {
    let folder =
        listed("metadata.jsonl", lines(&[json!({"winner": "1.png", "loser": "2.png", "caption": "a"})]));
    let (set, same) = (open(folder.path()).unwrap(), open_unpaired(folder.path()).unwrap());
    assert_eq!((pairs(&same), labels(&same)), (pairs(&set), vec![None]));
    assert_eq!(same.fingerprint(), set.fingerprint());
}

fn soft_labels(set: &PairSet) -> Vec<Option<f64>> {
    (0..set.len()).map(|position| set.soft_label(position)).collect()
}

#[track_caller]
fn assert_soft(set: &PairSet, wanted: &[Option<f64>]) {
    let found = soft_labels(set);
    let is_near = |(found, wanted): (&Option<f64>, &Option<f64>)| match (found, wanted) {
        (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-7,
        (found, wanted) => found == wanted,
    };
    assert!(found.len() == wanted.len() && found.iter().zip(wanted).all(is_near), "{found:?}");
}

/// One row by each: SmPO's script, rewards, a probability of the winner, one of the first image.
#[test]
fn scores_in_any_list_become_soft_labels_of_the_winner_that_people_chose() {
    const HIGH: f64 = 0.28201571106910706;
    const LOW: f64 = 0.11543526500463486;
    let labeled = |label_0: u8, more: Value| {
        let mut row = json!({"jpg_0": "1.png", "jpg_1": "2.png", "label_0": label_0, "label_1": 1 - label_0, "caption": "a"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let ranked = |more: Value| {
        let mut row = json!({"img_win": "1.png", "img_lose": "2.png", "prompt": "a"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let cases = [
        (labeled(1, json!({"ps_score_0": HIGH, "ps_score_1": LOW})), 0.731_058_578_630_004_9),
        // The scores side with the loser: the label stays and p is below one half
        (labeled(0, json!({"ps_score_0": HIGH, "ps_score_1": LOW})), 0.268_941_421_369_995_1),
        (labeled(0, json!({"score_0": 3, "score_1": 5})), 0.880_797_077_977_882_3),
        (labeled(0, json!({"probability_0": 0.25})), 0.75),
        (labeled(0, json!({"soft_label": 0.25})), 0.25),
        (labeled(1, json!({"soft_label": 0.9, "ps_score_0": LOW, "ps_score_1": HIGH})), 0.9),
        (ranked(json!({"win_score": 5, "lose_score": 3})), 0.880_797_077_977_882_3),
        (ranked(json!({"soft_label": 0.6})), 0.6),
    ];
    for (row, wanted) in cases {
        for (name, list) in LISTS {
            let folder = listed(name, list(std::slice::from_ref(&row)));
            assert_soft(&open(folder.path()).unwrap(), &[Some(wanted)]);
        }
    }
    let folder = listed("metadata.jsonl", lines(&[ranked(json!({"score_0": 1, "score_1": 2}))]));
    assert_soft(&open(folder.path()).unwrap(), &[None]);
}

#[test]
fn a_row_without_a_score_stays_a_pair_and_later_rows_may_have_one() {
    let row = |caption: Value, score: Value| json!({"winner": "1.png", "loser": "2.png", "caption": caption, "soft_label": score});
    let absent = json!({"winner": "1.png", "loser": "2.png", "caption": "a"});
    let rows = [
        absent,
        row("b".into(), 0.7.into()),
        row(Value::Null, 0.8.into()),
        row("c".into(), Value::Null),
        row("d".into(), "high".into()),
        row("e".into(), 0.6.into()),
    ];
    let folder = listed("metadata.jsonl", lines(&rows));
    let mut set = open(folder.path()).unwrap();
    assert_eq!(skipped(&set), [(2, Reason::NoCaption)]);
    assert_soft(&set, &[None, Some(0.7), None, None, Some(0.6)]);
    set.exclude(&[set.id(0), set.id(2)].into(), "bad").unwrap();
    assert_soft(&set, &[Some(0.7), None, Some(0.6)]);
}

#[test]
fn a_mapping_names_the_columns_of_scores() {
    let rows =
        [json!({"good": "1.png", "bad": "2.png", "caption": "a", "confidence": 0.9, "r": "5", "s": "3"})];
    let ranked = [("winner", "good"), ("loser", "bad")];
    for (name, list) in LISTS {
        let folder = listed(name, list(&rows));
        let with = |more: &[(&str, &str)]| open_mapped(folder.path(), &[&ranked, more].concat());
        assert_soft(&with(&[("soft_label", "confidence")]).unwrap(), &[Some(0.9)]);
        assert_soft(&with(&[("score_0", "r"), ("score_1", "s")]).unwrap(), &[Some(0.880_797_077_977_882_3)]);
        let half = with(&[("score_0", "r")]).unwrap_err().to_string();
        assert!(half.ends_with("name both score_0 and score_1"), "{half}");
        let two =
            with(&[("soft_label", "confidence"), ("probability_0", "confidence")]).unwrap_err().to_string();
        assert!(two.ends_with("name one kind of scores, not several"), "{two}");
    }
}

#[test]
fn scores_do_not_change_the_fingerprint() {
    let rows =
        |score: f64| [json!({"winner": "1.png", "loser": "2.png", "caption": "a", "soft_label": score})];
    let print = |score| open(listed("metadata.jsonl", lines(&rows(score))).path()).unwrap().fingerprint();
    assert_eq!(print(0.6), print(0.9));
}

#[test]
fn a_ranking_makes_a_pair_of_every_two_and_equal_ranks_are_ties() {
    let rows = [
        json!({"prompt": "a", "image_path": ["1.png", "2.png", "3.png"], "rank": [2, 1, 2]}),
        json!({"prompt": "b", "image_path": ["1.png"], "rank": [1]}),
        json!({"prompt": "c", "image_path": ["4.png", "9.png", "5.png"], "rank": [1, 2, 3]}),
    ];
    let folder = listed("test.json", array(&rows));
    let set = open(folder.path().join("test.json")).unwrap();
    assert_eq!(pairs(&set), [(0, 2, 1, "a"), (2, 2, 3, "a"), (5, 4, 5, "c")]);
    let wanted =
        [(1, Reason::Tie), (3, Reason::BadRow), (4, Reason::MissingImage), (6, Reason::MissingImage)];
    assert_eq!(skipped(&set), wanted);
    assert_eq!(set.place(set.skipped()[2].id), "row 2, pair 0");
}

#[test]
fn images_of_a_ranking_may_lie_in_the_folder_of_its_split() {
    let rows = [json!({"prompt": "a", "image_path": ["x.png", "y.png"], "human_preference": [0, 1]})];
    let folder = listed("train.json", array(&rows));
    fs::create_dir(folder.path().join("train")).unwrap();
    fs::write(folder.path().join("train/x.png"), png(8)).unwrap();
    fs::write(folder.path().join("train/y.png"), png(9)).unwrap();
    assert_eq!(pairs(&open(folder.path().join("train.json")).unwrap()), [(0, 9, 8, "a")]);
}

#[test]
fn an_array_that_is_none_or_has_no_end_says_so() {
    for (list, expected) in [
        ("{}", "something else at its start"),
        ("[1", "an array without an end"),
        ("[:]", "no value where a row should be"),
        ("[{\"a\": \"}\"}", "an array without an end"),
        ("[{\"a\": [", "an object without an end"),
        ("[{} {}]", "no comma after a row"),
        ("[{}] x", "something after the array"),
        ("[{},]", "a comma before its end"),
    ] {
        let folder = listed("metadata.json", list);
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, DataError::Store(StoreError::Malformed { .. })), "{list}: {error:?}");
        assert!(error.to_string().contains(expected), "{list}: {error}");
    }
}

#[test]
fn a_bad_row_of_an_array_is_skipped_by_name() {
    let good = json!({"winner": "1.png", "loser": "2.png", "caption": "a } \\ \" ] b"});
    let long = format!("{{\"winner\": \"{}\"}}", "x".repeat(17 << 20));
    let list = format!("\u{feff}[{good}, {{\"winner\": nonsense}}, {long}, {good}]");
    let folder = listed("metadata.json", list);
    let set = open(folder.path()).unwrap();
    assert_eq!(set.len(), 2);
    assert_eq!(set.caption(1), "a } \\ \" ] b");
    assert_eq!(skipped(&set), [(1, Reason::BadRow), (2, Reason::BadRow)]);
}

#[test]
fn rows_of_csv_that_are_too_short_are_skipped_and_one_without_end_stops() {
    let list = "image,lose_image,prompt\n1.png,2.png,\"a, b\"\n1.png\n1.png,2.png,caf\u{e9}\n";
    let folder = listed("metadata.csv", list);
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "a, b"), (2, 1, 2, "café")]);
    assert_eq!(skipped(&set), [(1, Reason::BadRow)]);
    let endless = format!("{list}\"{}", "x".repeat(40 << 20));
    let folder = listed("metadata.csv", endless);
    let error = open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("a row without an end"), "{error}");
}

#[test]
fn a_format_can_be_named_and_a_misspelled_one_is_suggested() {
    let folder = listed("pairs.json", array(&[json!({"winner": "1.png", "loser": "2.png", "caption": "a"})]));
    let with = |name: &str| {
        let settings = OpenSettings { format: Some(name.into()), ..OpenSettings::default() };
        open_with(&Location::local(folder.path()).unwrap(), &settings)
    };
    assert!(matches!(open(folder.path()), Err(DataError::UnknownFormat { .. })));
    assert_eq!(pairs(&with("json").unwrap()), [(0, 1, 2, "a")]);
    let text = with("jsn").unwrap_err().to_string();
    assert!(
        text.starts_with("no format \"jsn\", did you mean \"json\"?; wanted one of jsonl, parquet"),
        "{text}"
    );
}

#[test]
fn prompts_of_the_images_stand_in_for_captions() {
    let generated = |shade: u8, prompt: &str| {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.add_text_chunk("parameters".into(), format!("{prompt}\nSteps: 4")).unwrap();
        encoder.write_header().unwrap().write_image_data(&[shade; 3]).unwrap();
        out
    };
    let rows = [
        json!({"winner": "a.png", "loser": "b.png"}),
        json!({"winner": "a.png", "loser": "c.png"}),
        json!({"winner": "a.png", "loser": "1.png"}),
    ];
    let folder = listed("metadata.jsonl", lines(&rows));
    for (name, shade, prompt) in [("a", 21, "a fox"), ("b", 22, "a fox"), ("c", 23, "a cat")] {
        fs::write(folder.path().join(format!("{name}.png")), generated(shade, prompt)).unwrap();
    }
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 21, 22, "a fox")]);
    assert_eq!(skipped(&set), [(1, Reason::CaptionsDiffer), (2, Reason::NoCaption)]);
    // The same in folders and side by side, where no .txt says otherwise.
    for (winner, loser) in [("w/x.png", "l/x.png"), ("deep/x.png", "deep/x-rejectedlabel.png")] {
        let folder = tempfile::tempdir().unwrap();
        for (path, shade) in [(winner, 31), (loser, 32)] {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), generated(shade, "a fox")).unwrap();
        }
        assert_eq!(pairs(&open(folder.path()).unwrap()), [(0, 31, 32, "a fox")]);
    }
}

#[test]
fn rejected_images_lie_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shade) in
        [("a", 1), ("a-rejectedlabel", 2), ("b", 3), ("b-rejected", 4), ("b-masklabel", 5), ("c", 6)]
    {
        fs::write(folder.path().join(format!("{name}.png")), png(shade)).unwrap();
        fs::write(folder.path().join(format!("{name}.txt")), "words").unwrap();
    }
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "words"), (1, 3, 4, "words")]);
    assert_eq!(skipped(&set), [(2, Reason::NoCounterpart)]);
    assert_eq!(&*set.skipped()[0].detail, "there is no c-rejectedlabel");
}
