//! Records against those of the published writers, and what a board would show.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::message::{self, Size};
use super::record::record;
use super::*;
use crate::{AlarmRaised, Event, Probe, Start, Step};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/tensorboard").join(name)
}

#[test]
fn records_are_those_of_the_published_writers_byte_for_byte() {
    let case: Value = serde_json::from_slice(&fs::read(golden("events.json")).unwrap()).unwrap();
    let time = |value: &Value| value["wall_time"].as_f64().unwrap();
    let mut ours = record(&message::file_version(time(&case)));
    for recorded in case["records"].as_array().unwrap() {
        let (at, step) = (time(recorded), recorded["step"].as_u64().unwrap());
        let text = |key: &str| recorded[key].as_str().unwrap();
        ours.extend(record(&match text("kind") {
            "scalar" => message::scalars(at, step, [(text("tag"), text("value").parse().unwrap())]),
            "text" => message::text(at, step, text("tag"), text("value")),
            "image" => {
                let png = fs::read(golden(text("value"))).unwrap();
                message::image(at, step, text("tag"), writer::png_size(&png).unwrap(), &png)
            }
            "purge" => message::session_start(at, step),
            other => panic!("{other}"),
        }));
    }
    assert_eq!(ours, fs::read(golden("events")).unwrap());
}

#[test]
fn what_is_no_png_has_no_size() {
    let png = fs::read(golden("0.png")).unwrap();
    assert_eq!(writer::png_size(&png), Some(Size { height: 3, width: 5, channels: 3 }));
    for cut in 0..26 {
        assert_eq!(writer::png_size(&png[..cut]), None, "{cut}");
    }
    assert_eq!(writer::png_size(b"\xff\xd8\xff\xe0 a jpeg, which is not a png"), None);
    let folder = tempfile::tempdir().unwrap();
    let mut board = Writer::open(folder.path(), None).unwrap();
    let error = board.image_png("validation/a", 1, b"GIF89a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image validation/a does not begin as a PNG file does; give the bytes of one"
    );
}

#[test]
fn every_process_gets_a_file_that_sorts_behind_and_grows_by_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let first = Writer::open(folder.path().join("logs/x"), None).unwrap();
    let mut second = Writer::open(folder.path().join("logs/x"), Some(41)).unwrap();
    assert!(second.path() > first.path());
    assert!(second.path().file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    assert!(fs::metadata(first.path()).unwrap().len() < fs::metadata(second.path()).unwrap().len());
    let before = fs::read(second.path()).unwrap();
    second.scalar("loss", 41, 0.5).unwrap();
    let after = fs::read(second.path()).unwrap();
    let message = &after[before.len() + 12..after.len() - 4];
    assert_eq!(after[before.len()..], record(message));
}

fn full_step() -> Step {
    Step {
        step: 4,
        loss: 0.75,
        winner_error: 0.5,
        loser_error: Some(1.0),
        ref_winner: Some(0.375),
        ref_loser: Some(0.625),
        logit_mean: Some(3.0),
        implicit_accuracy: Some(0.875),
        margin: Some(0.25),
        margin_by_quarter: Some([Some(0.125), None, Some(-1.0), Some(2.0)]),
        residual_factor: Some(0.9),
        prediction_norm: Some(1.25),
        ref_norm: Some(1.0),
        beta: Some(400.0),
        grad_norm: 7.0,
        lr: 1e-5,
        pairs_per_second: 9.0,
        loss_scale: Some(65536.0),
        skipped: false,
    }
}

#[test]
fn a_step_has_the_figures_of_the_published_scripts_under_their_names() {
    let (at, curves) = scalars(&Event::Step(full_step()), "mapo").unwrap();
    assert_eq!(at, 5);
    let of = |tag: &str| curves.iter().find(|(name, _)| *name == tag).map(|(_, value)| *value);
    for (tag, value) in [
        ("loss", 0.75),
        ("raw_model_loss", 0.75),
        ("ref_loss", 0.5),
        ("implicit_acc", 0.875),
        ("OR loss", 0.25),
        ("train/winner_error", 0.5),
        ("train/winner_drift", 0.125),
        ("train/loser_drift", 0.375),
        ("train/prediction_norm", 1.25),
        ("train/norm_growth", 0.25),
        ("train/beta", 400.0),
        ("train/margin_t0", 0.125),
        ("train/margin_t2", -1.0),
    ] {
        assert_eq!(of(tag), Some(value), "{tag}");
    }
    assert_eq!(of("train/margin_t1"), None);
    let others = scalars(&Event::Step(full_step()), "diffusion-dpo").unwrap().1;
    assert!(others.iter().all(|(tag, _)| *tag != "OR loss"));
}

#[test]
fn figures_that_a_method_lacks_have_no_curve() {
    let alone = Step { winner_error: 0.5, ..Step::default() };
    let (_, curves) = scalars(&Event::Step(alone), "sft").unwrap();
    let tags: Vec<_> = curves.iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, ["loss", "lr", "train/winner_error", "train/grad_norm", "train/pairs_per_second"]);
}

#[test]
fn every_curve_of_the_list_is_written_for_some_event_and_once() {
    let probe = Probe {
        step: 5,
        n_pairs: 64,
        winner_error: 0.5,
        loser_error: Some(1.0),
        ref_winner: Some(0.5),
        ref_loser: Some(0.5),
        implicit_accuracy: Some(0.75),
        margin: Some(0.5),
        ..Probe::default()
    };
    let mut quarters = full_step();
    quarters.margin_by_quarter = Some([Some(0.0); 4]);
    let events = [Event::Step(quarters), Event::Probe(probe.with_interval())];
    let mut written: Vec<_> =
        events.iter().flat_map(|event| scalars(event, "mapo").unwrap().1).map(|(tag, _)| tag).collect();
    let listed: Vec<_> = SCALARS.iter().map(|scalar| scalar.tag).collect();
    assert_eq!(written, listed);
    written.sort_unstable();
    written.dedup();
    assert_eq!(written.len(), listed.len());
}

#[test]
fn the_guide_lists_exactly_these_curves() {
    let guide = fs::read_to_string(golden("../../docs/guide/tensorboard.md")).unwrap();
    let named = |by| match by {
        NamedAs::Diffusers => "diffusers",
        NamedAs::Mapo => "MaPO",
        NamedAs::Tastemaker => "tastemaker",
    };
    let rows: Vec<_> = guide.lines().filter(|line| line.starts_with("| `")).collect();
    let listed: Vec<_> =
        SCALARS.iter().map(|s| format!("| `{}` | {} | {} |", s.tag, named(s.named_as), s.meaning)).collect();
    assert_eq!(rows, listed, "the table of docs/guide/tensorboard.md");
}

#[test]
fn a_run_becomes_curves_and_its_alarms_texts() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Writer::open(folder.path(), None).unwrap();
    let start = Start {
        version: "0".into(),
        libtorch: None,
        method: "mapo".into(),
        device: "cpu".into(),
        n_pairs: 1,
        n_held_out: 0,
        n_ties: 0,
        n_skipped: 0,
        betas: Default::default(),
        step: 0,
        peak_memory_bytes: None,
    };
    let alarm = AlarmRaised { step: 5, name: None, message: "look here".into() };
    for event in [Event::Start(start), Event::Step(full_step()), Event::Alarm(alarm)] {
        board.event(&event).unwrap();
    }
    let bytes = fs::read(board.path()).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("OR loss") && holds("alarms/text_summary") && holds("look here"));
}

#[test]
fn no_two_curves_show_the_same_number() {
    // Every metric of its own size, so that equal curves are the same metric.
    let step = Step {
        loss: 0.7,
        winner_error: 0.3,
        loser_error: Some(0.51),
        ref_winner: Some(0.21),
        ref_loser: Some(0.34),
        logit_mean: Some(0.011),
        implicit_accuracy: Some(0.625),
        margin: Some(0.08),
        margin_by_quarter: Some([Some(0.01), Some(0.02), Some(0.03), Some(0.04)]),
        residual_factor: Some(0.97),
        grad_norm: 3.0,
        lr: 1e-5,
        pairs_per_second: 7.0,
        loss_scale: Some(1024.0),
        ..full_step()
    };
    for method in ["mapo", "diffusion-dpo"] {
        let mut curves = scalars(&Event::Step(step.clone()), method).unwrap().1;
        curves.sort_by(|one, other| one.1.total_cmp(&other.1));
        for pair in curves.windows(2) {
            assert!(pair[0].1 != pair[1].1, "{method}: {pair:?}");
        }
    }
}

#[test]
fn images_stand_under_their_prompts() {
    let long = "a fox ".repeat(40);
    let prompts = ["a  fox", "rain/sea", "a fox", &long, &long].map(str::to_owned);
    let tags = image_tags(&prompts, 2);
    assert_eq!(tags[..3], ["validation/a fox", "validation/a fox #2", "validation/rain/sea"]);
    assert_eq!(tags[4], "validation/a fox (3)");
    let distinct: std::collections::BTreeSet<_> = tags.iter().collect();
    assert_eq!((tags.len(), distinct.len()), (10, 10), "{tags:?}");
    assert!(tags.iter().all(|tag| tag.len() < 130));
}
