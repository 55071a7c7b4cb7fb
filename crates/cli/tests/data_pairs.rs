//! `tastemaker data pairs` and `data relabel`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::{Bench, Said, files, mistake};
use tastemaker_data::formats::{Columns, OpenSettings, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairSource, Side};
use tastemaker_store::checksum::hex;
use tastemaker_store::tree::Location;

const QUICK: [&str; 6] = ["data", "pairs", "--num_inference_steps", "2", "--model", "model"];

fn pairs(bench: &Bench, more: &[&str]) -> Said {
    bench.run(&[QUICK.as_slice(), more].concat())
}

#[track_caller]
fn made(bench: &Bench, more: &[&str]) -> Said {
    let said = pairs(bench, more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

/// A bench with prompts that the demo's judge knows.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("prompts.txt", "fox\nred apple\n\nhot beverage\n");
    bench
}

fn about(bench: &Bench, path: &str) -> Value {
    serde_json::from_slice(&fs::read(bench.path(path)).unwrap()).unwrap()
}

fn open(bench: &Bench, name: &str, columns: &[(&str, &str)]) -> PairSet {
    let mut named = Columns::default();
    for (key, column) in columns {
        *named.key(key).unwrap() = Some((*column).to_owned());
    }
    let settings = OpenSettings { columns: named, ties: true, ..OpenSettings::default() };
    open_with(&Location::local(bench.path(name)).unwrap(), &settings).unwrap()
}

/// Ids, captions and encoded images, the winner's first.
fn contents(set: &PairSet) -> Vec<(u64, String, [Vec<u8>; 2])> {
    let images = |at| Side::BOTH.map(|side| set.encoded(at, side).unwrap());
    (0..set.len()).map(|at| (set.id(at).0, set.caption(at).to_owned(), images(at))).collect()
}

const SCORED: [&str; 4] = ["--prompts", "prompts.txt", "--scorer", "nearest-art:style"];

#[test]
fn the_image_with_the_higher_score_wins() {
    let bench = bench();
    made(&bench, &[SCORED.as_slice(), &["--num_images_per_prompt", "3", "--out", "set"]].concat());
    let set = open(&bench, "set", &[]);
    assert_eq!((set.len(), set.skipped().len()), (3, 0));
    let captions: Vec<&str> = (0..3).map(|at| set.caption(at)).collect();
    assert_eq!(captions, ["fox", "red apple", "hot beverage"]);
    // Scores beside the labels say the same as the labels
    assert!((0..3).all(|at| set.soft_label(at).unwrap() > 0.5));
    let same = open(&bench, "set", &[("score_0", "nearest-art:style_0"), ("score_1", "nearest-art:style_1")]);
    assert!((0..3).all(|at| same.soft_label(at) == set.soft_label(at)));
    let about = about(&bench, "set/pairs.json");
    assert_eq!((&about["n_pairs"], &about["pick"]), (&Value::from(3), &Value::from("best-worst")));
    assert_eq!(about["scoring"]["scorers"][0]["name"], "nearest-art:style");
    let unet = about["sides"][0]["sha256"]["unet"].as_str().unwrap();
    assert_eq!(unet.len(), 64);
    // Trained on as it stands
    let said = bench.run(&[
        "train",
        "--pretrained_model_name_or_path=model",
        "--train_data_dir=set",
        "--method=mapo",
        "--resolution=32",
        "--held_out_fraction=0",
        "--max_train_steps=1",
        "--output_dir=out",
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn every_way_of_picking_makes_its_number_of_pairs() {
    let bench = bench();
    for (pick, n) in [("all", 9), ("adjacent", 6), ("best-random", 3), ("best-worst", 3)] {
        let more = ["--num_images_per_prompt", "3", "--pick", pick, "--overwrite", "--out", "set"];
        let said = made(&bench, &[SCORED.as_slice(), &more].concat());
        assert_eq!(open(&bench, "set", &[]).len(), n, "{pick}");
        let generated = if pick == "all" {
            "generated 9 images, 0 already generated"
        } else {
            "generated 0 images, 9 already generated"
        };
        assert!(said.stdout.contains(generated), "{}", said.stdout);
    }
    let flags = ["--num_images_per_prompt", "3", "--min_gap", "1e9", "--overwrite", "--out", "set"];
    let wide = [SCORED.as_slice(), &flags].concat();
    assert!(mistake(&pairs(&bench, &wide)).contains("of 3 pairs none is left, 3 of them ties"));
    made(&bench, &[wide.as_slice(), &["--keep_ties"]].concat());
    let ties = open(&bench, "set", &[]);
    assert!((0..3).all(|at| ties.is_tie(at)));
    // As after a set that was not finished.
    fs::remove_dir_all(bench.path("set/data")).unwrap();
    fs::remove_file(bench.path("set/pairs.json")).unwrap();
    made(&bench, &[wide.as_slice(), &["--keep_ties"]].concat());
}

#[test]
fn a_set_that_was_stopped_ends_with_the_same_bytes() {
    let bench = bench();
    let more = |out: &'static str| [SCORED.as_slice(), &["--batch_size", "4", "--out", out]].concat();
    made(&bench, &more("whole"));
    made(&bench, &more("cut"));
    let work: Vec<PathBuf> =
        fs::read_dir(bench.path("cut/work")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(work.len(), 12);
    for (i, path) in work.iter().enumerate().filter(|(i, _)| i % 5 != 0) {
        fs::remove_file(path).unwrap_or_else(|error| panic!("{i}: {error}"));
    }
    fs::remove_dir_all(bench.path("cut/data")).unwrap();
    made(&bench, &more("cut"));
    assert!(files(&bench.path("whole")) == files(&bench.path("cut")));
    let other = [more("other").as_slice(), &["--seed", "1"]].concat();
    made(&bench, &other);
    let names = |set: &str| -> BTreeSet<PathBuf> {
        files(&bench.path(set))
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.starts_with("work"))
            .collect()
    };
    assert!(names("other").is_disjoint(&names("whole")));
}

#[test]
fn prefixes_are_generated_with_and_not_told() {
    let bench = bench();
    let sides = ["--prompts", "prompts.txt", "--winner_prefix", "art", "--loser_prefix", "photo"];
    made(&bench, &[sides.as_slice(), &["--num_images_per_prompt", "2", "--out", "set"]].concat());
    let set = open(&bench, "set", &[]);
    assert_eq!((set.len(), set.caption(0)), (6, "fox"));
    let swapped = [sides[0], sides[1], "--winner_prefix", "photo", "--loser_prefix", "art"];
    made(&bench, &[swapped.as_slice(), &["--num_images_per_prompt", "2", "--out", "swapped"]].concat());
    for (one, other) in contents(&set).iter().zip(contents(&open(&bench, "swapped", &[]))) {
        assert!(one.2[0] == other.2[1] && one.2[1] == other.2[0], "the same noise on both sides");
    }
    let apart =
        [sides.as_slice(), &["--num_images_per_prompt", "2", "--separate_seeds", "--out", "apart"]].concat();
    made(&bench, &apart);
    for (one, other) in contents(&set).iter().zip(contents(&open(&bench, "apart", &[]))) {
        assert!(one.2[0] == other.2[0] && one.2[1] != other.2[1], "the loser's noise is another");
    }
    made(&bench, &["--prompt", "fox", "--preset", "pick-style-pixel-art", "--out", "preset"]);
    let prefixes = about(&bench, "preset/pairs.json")["sides"].clone();
    assert_eq!(prefixes[0]["prefix"], "Pixel art style image.");
    assert_eq!(prefixes[1]["prefix"], "Realistic 8k image.");
}

#[test]
fn another_model_may_generate_the_winners() {
    let bench = bench();
    let said = bench.train("lora", &["--method", "mapo", "--learning_rate", "0.1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    made(&bench, &["--prompts", "prompts.txt", "--winner_lora", "lora", "--out", "set"]);
    let set = open(&bench, "set", &[]);
    assert!(contents(&set).iter().all(|(_, _, [winner, loser])| winner != loser));
    let alike = mistake(&pairs(&bench, &["--prompt", "fox", "--winner_model", "model", "--out", "alike"]));
    assert!(alike.contains("winners and losers are generated alike"), "{alike}");
}

#[test]
fn pairs_may_be_left_to_people() {
    let bench = bench();
    made(
        &bench,
        &["--prompts", "prompts.txt", "--num_images_per_prompt", "2", "--out", "votes", "--jpeg", "90"],
    );
    let set = open(&bench, "votes", &[]);
    assert!(set.len() == 3 && (0..3).all(|at| set.is_tie(at)));
    assert!(set.encoded(0, Side::Winner).unwrap().starts_with(&[0xff, 0xd8]), "JPEG");
    let error = bench.train("out", &["--method", "mapo", "--train_data_dir", "votes"]);
    assert!(error.stderr.contains("nobody judged it"), "{}", error.stderr);
    let said =
        bench.succeed(&["data", "relabel", "votes", "--scorer", "nearest-art:style", "--out", "judged"]);
    assert!(said.stdout.contains("no pair has a label to agree with"), "{}", said.stdout);
    let judged = open(&bench, "judged", &[]);
    assert!(judged.len() == 3 && (0..3).all(|at| !judged.is_tie(at)));
}

#[test]
fn scorers_agree_with_their_own_labels_and_not_with_labels_turned_round() {
    let bench = bench();
    made(&bench, &[SCORED.as_slice(), &["--pick", "all", "--out", "set"]].concat());
    let relabel = |more: &[&str]| {
        bench.succeed(&[&["data", "relabel", "set", "--scorer", "nearest-art:style"], more].concat())
    };
    let said = relabel(&["--out", "again"]);
    assert!(
        said.stdout
            .starts_with("nearest-art:style: agrees with 100.0% (82.4-100.0) of the labels of 18 pairs\n"),
        "{}",
        said.stdout
    );
    let (set, again) = (open(&bench, "set", &[]), open(&bench, "again", &[]));
    assert_eq!(contents(&again), contents(&set));
    relabel(&["--weight", "nearest-art:style=-1", "--out", "turned"]);
    let turned = open(&bench, "turned", &[]);
    for (one, other) in contents(&set).iter().zip(contents(&turned)) {
        assert!(one.2[0] == other.2[1] && one.2[1] == other.2[0]);
    }
    let old = open(
        &bench,
        "turned",
        &[("label_0", "old_label_0"), ("label_1", "old_label_1"), ("image_0", "jpg_0"), ("image_1", "jpg_1")],
    );
    assert_eq!(contents(&old), contents(&set));
    let said = bench.succeed(&["data", "relabel", "turned", "--scorer", "nearest-art:style"]);
    assert!(said.stdout.contains("agrees with 0.0% (0.0-17.6) of the labels of 18 pairs"), "{}", said.stdout);
    assert_eq!(about(&bench, "again/relabel.json")["agreement_with_old_labels"][0]["agree"], 18);
}

#[test]
fn pairs_on_which_scorers_disagree_are_listed_for_curating() {
    let bench = bench();
    made(&bench, &[SCORED.as_slice(), &["--pick", "all", "--out", "set"]].concat());
    let judged = |out: &str, more: &[&str]| {
        let scorers = ["--scorer", "nearest-art:style", "--scorer", "nearest-art:quality"];
        bench.succeed(&[&["data", "relabel", "set", "--out", out], &scorers[..], more].concat());
        let text = fs::read_to_string(bench.path(out).join("check.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["fingerprint"], hex(&open(&bench, "set", &[]).opened_fingerprint()));
        let of = |check: &str| lines.iter().filter(|line| line["check"] == check).count();
        (of("scorers-disagree"), of("scorers-against-label"))
    };
    // The first scorer made the labels: where the second is of another mind they disagree, and turned round where it is not.
    let (disagree, against) = judged("judged", &[]);
    let (turned, against_turned) = judged("turned", &["--weight", "nearest-art:quality=-1"]);
    assert_eq!((disagree + turned, against, against_turned), (18, 0, 0));
    let (_, both) =
        judged("both", &["--weight", "nearest-art:style=-1", "--weight", "nearest-art:quality=-1"]);
    assert_eq!(both, turned, "where both agree with each other they are against the label");
    let said = bench.run(&["curate", "judged", "--check", "judged", "--port", "0"]);
    assert!(said.code != 0 && said.stderr.contains("it is of another set"), "{}", said.stderr);
}

#[test]
fn a_mix_lies_between_its_scorers() {
    let bench = bench();
    let mix = ["--scorer", "nearest-art:quality", "--weight", "nearest-art:quality=3"];
    made(&bench, &[SCORED.as_slice(), &mix, &["--pick", "all", "--out", "set"]].concat());
    let scorers = about(&bench, "set/pairs.json")["scoring"]["scorers"].clone();
    assert_eq!((&scorers[0]["weight"], &scorers[1]["weight"]), (&Value::from(1.0), &Value::from(3.0)));
    let said = bench.succeed(&[
        "data",
        "relabel",
        "set",
        "--scorer",
        "nearest-art:style",
        "--scorer",
        "nearest-art:quality",
    ]);
    assert_eq!(said.stdout.lines().count(), 3, "{}", said.stdout);
    assert!(said.stdout.lines().nth(2).unwrap().starts_with("together: agrees with "), "{}", said.stdout);
}

#[test]
fn mistakes_are_named() {
    let bench = bench();
    bench.write("full/file.txt", "something else");
    let wanted = [
        (["--out", "x"].as_slice(), 2, "nothing to generate"),
        (&["--prompt", "fox", "--out", "full"], 5, "full holds other things, such as file.txt"),
        (
            &["--prompt", "fox", "--out", "x", "--pick", "best-worst"],
            2,
            "add --scorer, or take all or adjacent",
        ),
        (&["--prompt", "fox", "--out", "x", "--min_gap", "1"], 2, "are about scores; add --scorer"),
        (&["--prompt", "fox", "--out", "x", "--scorer", "nobody"], 2, "no scorer is called `nobody`"),
        (
            &["--prompt", "fox", "--out", "x", "--preset", "pick-styl-cartoon"],
            2,
            "did you mean \"pick-style-cartoon\"?",
        ),
        (&["--prompt", "fox", "--out", "x", "--num_images_per_prompt", "1"], 2, "at least 2"),
        (
            &["--prompt", "fox", "--out", "x", "--scorer", "nearest-art", "--weight", "nearest-ar=1"],
            2,
            "did you mean \"nearest-art\"?",
        ),
        (
            &["--prompt", "a fox and a hen", "--out", "y", "--scorer", "nearest-art"],
            3,
            "is not one of the 456 captions",
        ),
    ];
    for (more, code, text) in wanted {
        let said = pairs(&bench, more);
        assert!(said.code == code && said.stderr.contains(text), "{} {}", said.code, said.stderr);
    }
    let said = bench.run(&["data", "relabel", "pairs", "--scorer", "nearest-art"]);
    assert!(said.code == 3 && said.stderr.contains("is not one of the 456 captions"), "{}", said.stderr);
}

#[test]
fn the_embedded_model_has_a_name() {
    let bench = Bench::empty();
    let cache = bench.path("cache");
    let line = [
        "sample",
        "--model",
        "demo",
        "--prompt",
        "fox",
        "--num_inference_steps",
        "1",
        "--out",
        "out",
        "--overwrite",
    ];
    for _ in 0..2 {
        let said =
            bench.run_in(&line, &[("XDG_CACHE_HOME", cache.to_str().unwrap()), ("OMP_NUM_THREADS", "1")]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let unpacked: Vec<_> = fs::read_dir(cache.join("tastemaker/demo")).unwrap().collect();
    assert_eq!(unpacked.len(), 1);
    let said = bench.run_in(&line, &[]);
    assert!(said.code == 2 && said.stderr.contains("set XDG_CACHE_HOME"), "{}", said.stderr);
}
