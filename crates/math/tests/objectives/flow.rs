//! The methods on flow models: published and computed numbers, and what is ours there.

use super::{at, build, measured};
use serde_json::{Value, json};
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{BetaConvention, NoiseLevel, Objective, Outcome, PairInputs};
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};

/// Velocity errors of winner and loser, the policy's and the reference's: the policy's margin is -0.02 better.
const ERRORS: [f64; 4] = [0.31, 0.35, 0.32, 0.34];

fn flow() -> NoiseSchedule {
    NoiseSchedule::flow(1000, 3.0).expect("a flow")
}

/// At a noise level of a flow.
fn at_sigma(objective: &Objective, errors: [f64; 4], sigma: f64) -> Outcome {
    let level = NoiseLevel::of(&flow(), Level::flow(sigma, 1000));
    objective.of_pair(&PairInputs { level, ..measured(errors) })
}

/// To the digits that are printed.
#[track_caller]
fn assert_printed(found: f64, wanted: f64, case: &str) {
    assert!((found - wanted).abs() <= 2e-11 * wanted.abs().max(1e-300), "{case}: {found}, wanted {wanted}");
}

#[test]
fn flow_dpo_is_diffusion_dpo_on_velocity_errors() {
    for (beta, loss, slope) in [
        (100.0, 0.313_261_687_518, 13.447_071_068_5),
        (500.0, 0.006_715_348_489_12, 1.673_212_731_07),
        (2000.0, 2.061_153_620_31e-9, 2.061_153_618_19e-6),
        (2500.0, 1.388_794_386_49e-11, 1.735_992_983_1e-8),
        (5000.0, 1.928_749_847_96e-22, 4.821_874_619_91e-19),
    ] {
        let outcome = at_sigma(&build("diffusion-dpo", json!({"beta": beta})), ERRORS, 0.6);
        assert!((outcome.logit.expect("a logit") - 0.01 * beta).abs() < 1e-12 * beta);
        // The errors' own rounding, magnified by beta.
        let close = |found: f64, wanted: f64| ((found / wanted) - 1.0).abs() < 1e-10;
        assert!(close(outcome.loss, loss) && close(outcome.d_winner, slope), "{beta}: {outcome:?}");
        assert_eq!(outcome.d_loser, -outcome.d_winner);
    }
}

#[test]
fn other_functions_of_the_four_errors_have_their_computed_values_at_any_noise_level() {
    let loss = |name: &str, settings: Value| {
        let objective = build(name, settings);
        let [low, high] = [0.05, 1.0].map(|sigma| at_sigma(&objective, ERRORS, sigma));
        assert_eq!(low, high, "{name} does not see the noise level");
        low.loss
    };
    assert_printed(loss("cdpo", json!({"beta": 100, "label_smoothing": 0.1})), 0.413_261_687_518, "cdpo");
    assert_printed(loss("ipo", json!({"beta": 5000})), 2450.25, "ipo");
    for (beta, alpha, wanted) in [
        (100.0, 8.0, 2.464_793_058_48),
        (100.0, 1.0, 0.582_203_108_888),
        (100.0, -0.5, 0.178_790_976_833),
        (500.0, 8.0, 0.060_258_155_883_4),
        (500.0, -0.5, 0.003_368_923_027_0),
    ] {
        assert_printed(loss("poly-dpo", json!({"beta": beta, "alpha": alpha})), wanted, "poly-dpo");
    }
    let slope = at_sigma(&build("poly-dpo", json!({"beta": 100, "alpha": 8})), ERRORS, 0.5).d_winner;
    // d logit / d L_w is -beta / 2
    assert_printed(slope, 50.0 * 1.841_836_887_3, "poly-dpo");
    for name in ["hinge", "dmpo", "kto", "sft"] {
        loss(name, json!({}));
    }
}

#[test]
fn linear_dpo_has_its_computed_values() {
    let swapped = [ERRORS[1], ERRORS[0], ERRORS[3], ERRORS[2]];
    for (beta, eta, errors, weight, loss) in [
        (10.0, 0.01, ERRORS, 0.46, -0.0184),
        (100.0, 0.001, ERRORS, 0.1, -0.004),
        (500.0, 0.01, ERRORS, 0.01, -0.0004),
        (500.0, 0.0, ERRORS, 0.0, 0.0),
        (5000.0, 0.05, ERRORS, 0.05, -0.002),
        (100.0, 0.001, swapped, 0.9, 0.036),
    ] {
        let outcome = at(&build("linear-dpo", json!({"beta": beta, "eta": eta})), errors);
        assert!((outcome.d_winner - weight).abs() < 1e-12, "{beta} {eta}: {outcome:?}");
        assert!((outcome.loss - loss).abs() < 1e-13, "{beta} {eta}: {outcome:?}");
        assert_eq!(outcome.d_loser, -outcome.d_winner);
    }
    let untouched = at(&build("linear-dpo", Value::Null), [0.3, 0.5, 0.3, 0.5]);
    assert_eq!((untouched.d_winner, untouched.logit), (0.5, Some(0.0)));
}

#[test]
fn mapo_scores_velocity_errors_as_they_are() {
    let release = at_sigma(&build("mapo", Value::Null), ERRORS, 0.9);
    assert_printed(release.logit.expect("a logit"), 9.450_500_467_53, "release");
    assert_printed(release.loss, 0.310_007_864_71, "release");
    let paper = at_sigma(&build("mapo", json!({"form": "paper"})), ERRORS, 0.9);
    assert_printed(paper.logit.expect("a logit"), 0.043_528_106_349_8, "paper");
    assert_printed(paper.loss, 0.393_952_493_212, "paper");
}

#[test]
fn mapo_on_implied_noise_is_mapo_at_noise_errors_with_imitation_of_the_output() {
    for form in ["release", "paper"] {
        let on_noise = build("mapo", json!({"form": form, "scored_error": "noise"}));
        for sigma in [0.1, 0.5, 0.9] {
            let gain = (1.0_f64 - sigma).powi(2);
            let plain = at(&build("mapo", json!({"form": form})), ERRORS.map(|error| gain * error));
            let found = at_sigma(&on_noise, ERRORS, sigma);
            assert_printed(found.logit.expect("a logit"), plain.logit.expect("a logit"), form);
            assert!((found.loss - (plain.loss + (1.0 - gain) * ERRORS[0])).abs() < 1e-12, "{form} {sigma}");
            assert!((found.d_loser - gain * plain.d_loser).abs() < 1e-9, "{form} {sigma}");
        }
        let in_noise = at_sigma(&on_noise, ERRORS, 1.0);
        assert_eq!(
            (in_noise.logit, in_noise.d_winner, in_noise.d_loser.abs()),
            (Some(0.0), 1.0, 0.0),
            "{form}"
        );
        // Where the noise is predicted, the two are the same.
        assert_eq!(at(&on_noise, ERRORS).logit, at(&build("mapo", json!({"form": form})), ERRORS).logit);
    }
    let v = NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::VPrediction)
        .expect("a schedule");
    for t in [0, 400, 999] {
        let level = NoiseLevel::at(&v, t);
        assert!((level.noise_gain() - v.alpha_bar(t)).abs() < 1e-12, "{t}");
    }
}

#[test]
fn weightings_of_sft_follow_the_noise_level() {
    for (scheme, wanted) in
        [("none", 1.0), ("sigma_sqrt", 100.0), ("cosmap", 0.776_365_6), ("clean_latent", 0.01)]
    {
        let outcome = at_sigma(&build("sft", json!({"weighting_scheme": scheme})), ERRORS, 0.1);
        assert!((outcome.d_winner - wanted).abs() < 1e-7 * wanted, "{scheme}: {outcome:?}");
    }
}

#[test]
fn an_anchor_adds_the_mean_distance_of_outputs_to_any_method() {
    for entry in tastemaker_math::objectives::OBJECTIVES {
        let (plain, held) =
            (build(entry.name, Value::Null), build(entry.name, json!({"anchor_weight": 0.5})));
        let needs = held.needs();
        assert!(needs.reference && needs.distance && !plain.needs().distance, "{}", entry.name);
        let (before, after) = (at(&plain, ERRORS), at(&held, ERRORS));
        // Distances are 0.02 and 0.05.
        let (weight, distances) = if needs.loser { (0.25, 0.07) } else { (0.5, 0.02) };
        assert!((after.loss - before.loss - weight * distances).abs() < 1e-12, "{}", entry.name);
        assert_eq!(after.d_distance, weight, "{}", entry.name);
        assert_eq!((after.d_winner, after.d_loser), (before.d_winner, before.d_loser), "{}", entry.name);
        assert_eq!(before.d_distance, 0.0);
    }
}

#[test]
#[should_panic(expected = "the objective needs the outputs' distances, which were not measured")]
fn an_anchor_without_its_distances_is_a_bug() {
    let held = build("sft", json!({"anchor_weight": 1}));
    held.of_pair(&PairInputs { distances: None, ..measured(ERRORS) });
}

#[test]
fn betas_of_other_programs_are_converted_both_ways() {
    let ours = 100.0;
    for (n_elements, sum) in [
        (65_536, 0.001_525_878_906_25),
        (262_144, 0.000_381_47),
        (131_072, 0.000_762_94),
        (524_288, 0.000_190_73),
    ] {
        assert!((BetaConvention::Sum.of_ours(ours, n_elements) - sum).abs() < 5.1e-9);
    }
    assert_eq!(BetaConvention::Sum.of_ours(ours, 65_536), 0.001_525_878_906_25);
    for (convention, factor) in [
        (BetaConvention::Mean, 1.0),
        (BetaConvention::NoHalf, 2.0),
        (BetaConvention::Sum, 65_536.0),
        (BetaConvention::SumNoHalf, 131_072.0),
    ] {
        assert_eq!(convention.to_ours(0.25, 65_536), 0.25 * factor);
        assert_eq!(convention.of_ours(convention.to_ours(0.25, 65_536), 65_536), 0.25);
    }
    for (convention, name) in BetaConvention::ALL {
        assert_eq!(serde_json::to_value(convention).expect("a word"), name);
    }
    // OneTrainer's logit has no half: twice its beta here gives its loss.
    let no_half = BetaConvention::NoHalf.to_ours(100.0, 1);
    let outcome = at(&build("diffusion-dpo", json!({"beta": no_half})), ERRORS);
    assert!((outcome.loss - 0.126_928_011_043).abs() < 1e-12);
}

/// The conversion of `beta` is exact because a method sees nothing but products of it and differences of errors.
#[test]
fn a_method_at_sums_of_errors_and_the_beta_of_sums_has_the_same_logit() {
    for entry in tastemaker_math::objectives::OBJECTIVES {
        let ours = build(entry.name, Value::Null);
        assert_eq!(
            ours.beta_conventions().first().copied(),
            ours.beta_conventions().first().map(|_| BetaConvention::Mean)
        );
        if ours.beta_conventions().is_empty() {
            continue;
        }
        let beta = ours.beta().expect("a convention of a beta");
        let theirs = ours.with_beta(BetaConvention::Sum.of_ours(beta, 65_536)).expect("a beta");
        let (mean, sum) = (at(&ours, ERRORS), at(&theirs, ERRORS.map(|error| 65_536.0 * error)));
        assert_eq!(mean.logit, sum.logit, "{}", entry.name);
        let logit = mean.logit.expect("a logit");
        let halved = ours.beta_conventions().contains(&BetaConvention::NoHalf);
        assert_eq!(halved, !["kto", "linear-dpo"].contains(&entry.name), "{}", entry.name);
        assert!(logit != 0.0 || entry.name == "kto", "{}", entry.name);
    }
}
