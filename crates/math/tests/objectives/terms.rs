//! `sft_weight` and `safeguard_mu`: settings of every method, and what they promise.

use super::{at, build, image, measured, refusal};
use serde_json::{Value, json};
use std::path::PathBuf;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{Label, OBJECTIVES, Objective, Outcome, PairInputs};

fn names() -> impl Iterator<Item = &'static str> {
    OBJECTIVES.iter().map(|entry| entry.name)
}

const ERRORS: [f64; 4] = [0.1, 0.12, 0.1002, 0.1201];

/// At a pair whose residuals have the given mean product.
fn at_product(objective: &Objective, errors: [f64; 4], product: f64) -> Outcome {
    objective.of_pair(&PairInputs { residual_product: Some(product), ..measured(errors) })
}

#[test]
fn terms_are_printed_with_a_methods_settings_only_when_set() {
    for name in names() {
        let plain = build(name, Value::Null);
        for key in ["sft_weight", "safeguard_mu"] {
            assert!(plain.settings().get(key).is_none(), "{name}: {key} is a setting of the method itself");
        }
        let with = build(name, json!({"sft_weight": 0.25}));
        let mut expected = plain.settings().clone();
        expected["sft_weight"] = json!(0.25);
        assert_eq!(*with.settings(), expected);
        assert_eq!(*build(name, expected.clone()).settings(), expected, "printed settings parse back");
        assert_eq!(with.name(), name);
        assert_eq!(
            build(name, json!({"sft_weight": null, "safeguard_mu": null})).settings(),
            plain.settings()
        );
    }
}

#[test]
fn what_a_method_needs_it_needs_with_terms_too() {
    for name in names() {
        let (plain, with) = (build(name, Value::Null), build(name, json!({"sft_weight": 1})));
        assert_eq!(plain.needs(), with.needs());
        assert_eq!(plain.is_unpaired(), with.is_unpaired());
        assert_eq!(plain.corruption(), with.corruption());
        assert!(!plain.needs().residual_product);
    }
    assert!(build("mapo", json!({"safeguard_mu": 0.5})).needs().residual_product);
}

#[test]
fn an_sft_weight_adds_exactly_itself_to_the_winners_derivative() {
    for name in names() {
        let (plain, with) = (build(name, Value::Null), build(name, json!({"sft_weight": 0.25})));
        let [before, after] = [&plain, &with].map(|objective| at(objective, ERRORS));
        // To a method of single images a pair is the mean of two, one of them liked
        let weight = if plain.is_unpaired() { 0.125 } else { 0.25 };
        assert_eq!(after.d_winner, before.d_winner + weight, "{name}");
        assert_eq!(after.loss, before.loss + weight * 0.1, "{name}");
        assert_eq!((after.d_loser, after.logit), (before.d_loser, before.logit), "{name}");
    }
}

#[test]
fn an_sft_weight_counts_for_liked_images_alone() {
    let (plain, with) = (build("kto", Value::Null), build("kto", json!({"sft_weight": 0.25})));
    let one = |objective: &Objective, label| objective.of_image(&image(label, 0.1, 0.1002)).d_winner;
    assert_eq!(one(&with, Label::Liked), one(&plain, Label::Liked) + 0.25);
    assert_eq!(one(&with, Label::Disliked), one(&plain, Label::Disliked));
}

#[test]
fn a_safeguard_changes_the_losers_derivative_and_nothing_else() {
    for name in names() {
        let plain = build(name, Value::Null);
        if plain.is_unpaired() || !plain.needs().loser {
            continue;
        }
        let with = build(name, json!({"safeguard_mu": 0.6}));
        for (product, factor) in [(0.08, 0.5), (0.01, 1.0), (0.0, 1.0), (-0.05, 1.0)] {
            let before = at_product(&plain, ERRORS, product);
            let after = at_product(&with, ERRORS, product);
            assert!(
                (after.d_loser - factor * before.d_loser).abs() <= 1e-12 * before.d_loser.abs(),
                "{name}"
            );
            assert_eq!(
                (after.loss, after.d_winner, after.logit),
                (before.loss, before.d_winner, before.logit)
            );
            assert!(
                after.residual_factor.is_some_and(|found| (found - factor).abs() < 1e-12),
                "{name}: {after:?}"
            );
            assert_eq!(before.residual_factor, None, "{name}");
        }
    }
}

#[test]
#[should_panic(expected = "the objective needs the residual product, which was not measured")]
fn a_missing_residual_product_is_a_bug_and_not_a_zero() {
    let safeguarded = build("diffusion-dpo", json!({"safeguard_mu": 0.6}));
    safeguarded.of_pair(&PairInputs { residual_product: None, ..measured([0.1; 4]) });
}

#[test]
fn terms_that_cannot_be_are_refused_by_name() {
    for (name, settings, message) in [
        ("mapo", json!({"sft_weight": 0}), "setting \"sft_weight\" must be a positive number, found 0"),
        (
            "ipo",
            json!({"sft_weight": "much"}),
            "setting \"sft_weight\": invalid type: string \"much\", expected f64",
        ),
        (
            "diffusion-dpo",
            json!({"safeguard_mu": 1.5}),
            "setting \"safeguard_mu\" must be between 0 and 1, found 1.5",
        ),
        (
            "sft",
            json!({"safeguard_mu": 0.6}),
            "setting \"safeguard_mu\" must be skipped with a method that uses no losers, found 0.6",
        ),
        (
            "kto",
            json!({"safeguard_mu": 0.6}),
            "setting \"safeguard_mu\" must be skipped with a method of single images, where no loser meets its winner, found 0.6",
        ),
        (
            "diffusion-dpo",
            json!({"sft_wieght": 1}),
            "unknown setting \"sft_wieght\", did you mean \"sft_weight\"?; known are beta, sft_weight, safeguard_mu, anchor_weight",
        ),
        (
            "diffusion-dpo",
            json!({"betta": 1, "sft_weight": 1}),
            "unknown setting \"betta\", did you mean \"beta\"?; known are beta, sft_weight, safeguard_mu, anchor_weight",
        ),
        ("sft", json!([1]), "settings of an objective are a table of keys and values, found [1]"),
    ] {
        assert_eq!(refusal(name, settings).to_string(), message);
    }
}

/// AIDC-AI/Diffusion-SDPO's factor and loss, recorded with autograd.
#[test]
fn golden_rows_of_terms_match() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/objectives/terms.json");
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("a golden")).expect("JSON");
    let name = golden["objective"].as_str().expect("a name");
    let mut held_back = 0;
    for case in golden["cases"].as_array().expect("cases") {
        let objective = build(name, case["settings"].clone());
        let plain = build(name, json!({"beta": case["settings"]["beta"]}));
        let rows: Vec<[f64; 8]> = serde_json::from_value(case["rows"].clone()).expect("rows of numbers");
        assert!(rows.len() > 40);
        for row in rows {
            let [w, l, rw, rl, product, expected @ ..] = row;
            let ours = at_product(&objective, [w, l, rw, rl], product);
            for (ours, theirs) in [ours.loss, ours.d_winner, ours.d_loser].into_iter().zip(expected) {
                assert!(
                    (ours - theirs).abs() <= 1e-12 + 1e-9 * theirs.abs(),
                    "{objective:?} {row:?}: {ours}"
                );
            }
            let alone = at(&plain, [w, l, rw, rl]).d_loser;
            held_back += usize::from(ours.d_loser.abs() < 0.999 * alone.abs());
        }
    }
    assert!(held_back > 40, "{held_back} rows only in which the safeguard does anything");
}

/// A linear model of `OUT` outputs for `IN` features; its outputs for one image of a pair.
const OUT: usize = 6;
const IN: usize = 4;
type Weights = [[f64; IN]; OUT];

/// Features and target of one image.
struct Image {
    features: [f64; IN],
    target: [f64; OUT],
}

impl Image {
    fn residual(&self, weights: &Weights) -> [f64; OUT] {
        std::array::from_fn(|o| {
            weights[o].iter().zip(self.features).map(|(w, x)| w * x).sum::<f64>() - self.target[o]
        })
    }

    fn error(&self, weights: &Weights) -> f64 {
        mean_product(self.residual(weights), self.residual(weights))
    }
}

fn length(features: [f64; IN]) -> f64 {
    features.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn mean_product(one: [f64; OUT], other: [f64; OUT]) -> f64 {
    one.into_iter().zip(other).map(|(a, b)| a * b).sum::<f64>() / OUT as f64
}

/// Winner and loser share noise and timestep, so their features agree for the most part, and have one length.
fn drawn_pair(i: u64) -> (Weights, Image, Image) {
    let mut keyed = Keyed::new(3, Stream::Data, i, 0);
    let shared: [f64; IN] = std::array::from_fn(|_| keyed.normal());
    let shared = shared.map(|x| 2.0 * x / length(shared));
    let common: [f64; OUT] = std::array::from_fn(|_| keyed.normal());
    let weights = std::array::from_fn(|_| std::array::from_fn(|_| keyed.normal()));
    let mut image = |shift: f64| {
        let features = shared.map(|x| x + 0.3 * keyed.normal());
        let target = common.map(|y| (1.0 + shift) * y + 0.5 * keyed.normal());
        Image { features: features.map(|x| x / length(features)), target }
    };
    (weights, image(0.0), image(0.8))
}

/// How much the winner's error changes in a small step down the gradient, per length of the step.
fn winners_change(method: &str, settings: Value, i: u64) -> (f64, f64) {
    const STEP: f64 = 1e-7;
    let objective = build(method, settings);
    let (weights, winner, loser) = drawn_pair(i);
    let (w, l) = (winner.error(&weights), loser.error(&weights));
    let (of_winner, of_loser) = (winner.residual(&weights), loser.residual(&weights));
    // The reference is the policy: the first step of a run
    let outcome = at_product(&objective, [w, l, w, l], mean_product(of_winner, of_loser));
    // d error / d weights[o][f] = 2 / OUT residual[o] features[f]
    let gradient = |o: usize, f: usize| {
        2.0 / OUT as f64
            * (outcome.d_winner * of_winner[o] * winner.features[f]
                + outcome.d_loser * of_loser[o] * loser.features[f])
    };
    let moved: Weights =
        std::array::from_fn(|o| std::array::from_fn(|f| weights[o][f] - STEP * gradient(o, f)));
    // What the published rule promises: at least mu of the winner's own descent, in the space of outputs
    let own = outcome.d_winner * 4.0 / OUT as f64 * w;
    ((winner.error(&moved) - w) / STEP, own)
}

#[test]
fn the_winners_error_does_not_rise_along_a_safeguarded_step() {
    let pairs = 0..400;
    let rising = pairs.clone().filter(|&i| winners_change("diffusion-dpo", json!({"beta": 200}), i).0 > 0.0);
    let rising = rising.count();
    assert!(rising > 40, "without a safeguard the winner gets worse in {rising} of 400 pairs");
    for mu in [0.0, 0.6, 0.9, 1.0] {
        for i in pairs.clone() {
            let settings = json!({"beta": 200, "safeguard_mu": mu});
            let (change, own) = winners_change("diffusion-dpo", settings, i);
            let (_, winner, loser) = drawn_pair(i);
            let agreement: f64 = winner.features.iter().zip(loser.features).map(|(a, b)| a * b).sum();
            assert!(agreement > 0.0, "the features of a pair agree");
            assert!(change <= -mu * own + 1e-3 * own, "pair {i} with mu {mu}: {change}, own descent {own}");
        }
    }
}
