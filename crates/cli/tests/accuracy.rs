//! `tastemaker accuracy`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Bench, Said, files, mistake};

fn accuracy(bench: &Bench, more: &[&str]) -> Said {
    bench.run(&[&["accuracy", "--pairs", "pairs", "--draws", "4"], more].concat())
}

#[track_caller]
fn found(bench: &Bench, more: &[&str]) -> Value {
    let said = accuracy(bench, &[more, &["--out", "found.json", "--overwrite"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    serde_json::from_slice(&fs::read(bench.path("found.json")).unwrap()).unwrap()
}

#[test]
fn a_model_beside_itself_prefers_nothing() {
    let bench = Bench::new();
    let found = found(&bench, &["--model", "model", "--reference", "model", "--beta", "5000"]);
    assert_eq!(found["accuracy"]["fraction"], 0.5);
    assert_eq!((&found["accuracy"]["ties"], &found["n_pairs"]), (&Value::from(6), &Value::from(6)));
    assert_eq!(found["margin"], 0.0);
    assert!((found["log_loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-12);
}

#[test]
fn training_on_pairs_makes_a_model_prefer_their_winners() {
    let bench = Bench::new();
    let line =
        "--max_train_steps 30 --learning_rate 2e-4 --adapter_type full --train_batch_size 6 --no_hflip";
    let longer: Vec<&str> = line.split_whitespace().collect();
    let said = bench.train("tuned", &[&["--method", "diffusion-dpo"], longer.as_slice()].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let whole = found(&bench, &["--model", "tuned/model", "--reference", "model"]);
    assert!(whole["accuracy"]["fraction"].as_f64().unwrap() > 0.5, "{whole}");
    let unet = found(&bench, &["--model", "model", "--unet_init", "tuned/model"]);
    assert_eq!((&unet["accuracy"], &unet["margin"]), (&whole["accuracy"], &whole["margin"]));
    assert_eq!(found(&bench, &["--model", "tuned/model", "--reference", "model"]), whole);
    let turned = found(&bench, &["--model", "model", "--reference", "tuned/model"]);
    assert!(turned["accuracy"]["fraction"].as_f64().unwrap() < 0.5, "{turned}");
    let other = found(&bench, &["--model", "tuned/model", "--reference", "model", "--seed", "1"]);
    assert_ne!(other["margin"], whole["margin"]);
}

#[test]
fn a_lora_is_compared_with_the_model_it_is_on() {
    let bench = Bench::new();
    let text = ["--train_text_encoder"];
    for (name, more) in [("lora", [].as_slice()), ("text", text.as_slice())] {
        let more = [&["--method", "mapo", "--learning_rate", "1e-2"], more].concat();
        let said = bench.train(name, &more);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let with = found(&bench, &["--model", "model", "--lora", name]);
        assert_ne!(with["margin"], 0.0, "{name}");
        let alone = found(&bench, &["--model", "model", "--lora", name, "--without_reference"]);
        assert_ne!(alone["margin"], with["margin"], "{name}");
    }
}

#[test]
fn images_are_encoded_once_for_both_models() {
    let bench = Bench::new();
    let line = ["accuracy", "--pairs", "pairs", "--draws", "1", "--model", "model", "--reference", "model"];
    let cache = bench.path("cache");
    let said = bench.run_in(&line, &[("XDG_CACHE_HOME", cache.to_str().unwrap()), ("OMP_NUM_THREADS", "1")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("encoded 6 pairs").count(), 1, "{}", said.stderr);
    let folders = fs::read_dir(cache.join("tastemaker/pairs")).unwrap().count();
    assert_eq!(folders, 1, "{:?}", files(&cache).into_iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn mistakes_are_named() {
    let bench = Bench::new();
    support::bright_vae(&bench);
    let cases = [
        (["--model", "model"].as_slice(), "exit code 2\nerror: nothing to compare the model with"),
        (
            &["--model", "model", "--reference", "bright"],
            "exit code 4\nerror: the model and its reference differ in their VAE",
        ),
        (&["--model", "model", "--reference", "model", "--beta", "-1"], "exit code 2\nerror: --beta is -1"),
        (&["--model", "model", "--reference", "nowhere"], "exit code 4\n"),
        (&["--model", "model", "--reference", "model", "--pairs", "nowhere"], "exit code 3\n"),
    ];
    for (more, wanted) in cases {
        let found = mistake(&accuracy(&bench, more));
        assert!(found.starts_with(wanted), "{found}");
    }
}
