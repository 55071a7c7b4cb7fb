//! Closed-form values, invariances, and the mistakes read in other trainers, each as a claim.

use super::{LEVEL, at, build, measured};
use serde_json::{Value, json};
use std::f64::consts::LN_2;
use tastemaker_math::dual::log_sigmoid;
use tastemaker_math::objectives::{
    NoiseLevel, OBJECTIVES, Objective, PairInputs, TieRule, implicit_accuracy,
};
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};

fn relative() -> [Objective; 2] {
    [build("diffusion-dpo", Value::Null), build("ddim-inpo", Value::Null)]
}

#[test]
fn equal_policy_and_reference_give_logit_zero_and_exactly_ln_two() {
    for objective in relative() {
        for (w, l) in [(0.1, 0.2), (1e-8, 1e2), (0.123_456_789, 0.987_654_321), (f64::from(0.1_f32), 0.3)] {
            let outcome = at(&objective, [w, l, w, l]);
            assert_eq!((outcome.loss, outcome.logit), (LN_2, Some(0.0)));
            let accuracies = [TieRule::Strict, TieRule::Half].map(|rule| implicit_accuracy(0.0, rule));
            assert_eq!(accuracies, [0.0, 0.5]);
        }
    }
}

#[test]
fn the_first_gradient_of_dpo_is_a_quarter_of_beta() {
    let outcome = at(&build("diffusion-dpo", json!({"beta": 2000})), [0.1, 0.1, 0.1, 0.1]);
    assert_eq!((outcome.d_winner, outcome.d_loser), (500.0, -500.0));
}

#[test]
fn beta_multiplies_mean_errors_by_one_half() {
    // -log sigmoid(-0.5 * 5000 * ((0.100 - 0.103) - (0.101 - 0.102))) = -log sigmoid(5)
    let outcome = at(&build("diffusion-dpo", Value::Null), [0.100, 0.103, 0.101, 0.102]);
    assert!((outcome.logit.expect("a logit") - 5.0).abs() < 1e-9);
    assert!((outcome.loss - 0.006_715_348_489_118).abs() < 1e-11);
}

#[test]
fn swapping_winner_and_loser_swaps_the_gradient_of_the_mirrored_logit() {
    for objective in relative() {
        let there = at(&objective, [0.1, 0.1003, 0.1002, 0.1001]);
        let back = at(&objective, [0.1003, 0.1, 0.1001, 0.1002]);
        assert_eq!(there.logit, back.logit.map(|logit| -logit));
        // sigmoid(x) + sigmoid(-x) = 1
        let beta = objective.settings()["beta"].as_f64().expect("beta");
        assert!((there.d_winner + back.d_winner - 0.5 * beta).abs() < 1e-9);
    }
}

#[test]
fn adding_the_same_to_both_policy_errors_leaves_dpo_alone_and_changes_mapo() {
    let both = |objective: &Objective, by: f64| at(objective, [0.125 + by, 0.25 + by, 0.25, 0.25]);
    for objective in relative() {
        assert_eq!(both(&objective, 0.0), both(&objective, 0.5));
    }
    for form in ["release", "paper"] {
        let mapo = build("mapo", json!({"form": form}));
        let (before, after) = (both(&mapo, 0.0), both(&mapo, 0.5));
        assert!((before.loss - after.loss).abs() > 0.1 && before.logit != after.logit);
    }
}

#[test]
fn ddim_inpo_has_the_loss_of_diffusion_dpo() {
    let [dpo, inpo] = ["diffusion-dpo", "ddim-inpo"].map(|name| build(name, json!({"beta": 3000})));
    assert_eq!(at(&dpo, [0.1, 0.11, 0.12, 0.1]), at(&inpo, [0.1, 0.11, 0.12, 0.1]));
}

#[test]
fn released_mapo_is_almost_reference_free_dpo_with_beta_500() {
    let outcome = at(&build("mapo", Value::Null), [0.10, 0.12, 0.0, 0.0]);
    let logit = outcome.logit.expect("a logit");
    assert!((logit - 4.91).abs() < 5e-3, "{logit}");
    assert!((outcome.loss - (0.10 - 0.1 * log_sigmoid(logit))).abs() < 1e-15);
}

#[test]
fn released_mapo_pushes_the_margin_fifty_times_harder_than_the_paper() {
    let slope = |settings| at(&build("mapo", settings), [1e-9, 1e-9, 0.0, 0.0]).d_loser;
    let (release, paper) = (slope(json!({"form": "release"})), slope(json!({"form": "paper"})));
    assert!((release + 12.5).abs() < 1e-6 && (paper + 0.25).abs() < 1e-6, "{release} {paper}");
}

#[test]
fn the_papers_margin_gradient_does_not_depend_on_beta_at_the_start() {
    for beta in [8.0, 32.0, 64.0, 128.0, 1024.0] {
        let outcome = at(&build("mapo", json!({"form": "paper", "beta": beta})), [1e-12, 1e-12, 0.0, 0.0]);
        assert!((outcome.d_loser + 0.25).abs() < 1e-7, "{beta}: {outcome:?}");
    }
}

/// diffusers `train_text_to_image.py`: `min(SNR, gamma)` over SNR for the noise, over SNR + 1 for the velocity.
#[test]
fn min_snr_weights_agree_with_both_published_cases() {
    let sft = build("sft", json!({"snr_gamma": 5.0}));
    for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
        let schedule = NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, prediction)
            .expect("a schedule");
        for t in [0, 10, 100, 300, 500, 999] {
            let snr = schedule.snr(t);
            let divisor = if prediction == Prediction::Epsilon { snr } else { snr + 1.0 };
            let level = NoiseLevel::at(&schedule, t);
            let loss = sft.of_pair(&PairInputs { level, ..measured([0.3; 4]) });
            let expected = snr.min(5.0) / divisor;
            assert!(
                (loss.loss - 0.3 * expected).abs() < 1e-12 && (loss.d_winner - expected).abs() < 1e-12,
                "{t}"
            );
        }
    }
}

#[test]
fn released_mapo_follows_the_number_of_training_timesteps() {
    let mapo = build("mapo", Value::Null);
    let logit = |n_train_timesteps| {
        let level = NoiseLevel { n_train_timesteps, ..LEVEL };
        mapo.of_pair(&PairInputs { level, ..measured([0.1, 0.12, 0.0, 0.0]) }).logit.expect("a logit")
    };
    assert!((logit(1000) - 10.0 * logit(100)).abs() < 1e-10);
}

/// Trap: a reference kept in half precision. One rounding step of its error is visible in the logit.
#[test]
fn one_half_precision_rounding_of_the_reference_moves_the_logit_visibly() {
    let half_precision_step = 0.1 * 2.0_f64.powi(-11);
    let dpo = build("diffusion-dpo", Value::Null);
    let logit = at(&dpo, [0.1, 0.1, 0.1 + half_precision_step, 0.1]).logit.expect("a logit");
    assert!(logit > 0.1, "{logit}");
    // The same step in single precision is not
    let logit = at(&dpo, [0.1, 0.1, 0.1 + 0.1 * 2.0_f64.powi(-24), 0.1]).logit.expect("a logit");
    assert!(logit.abs() < 1e-4, "{logit}");
}

/// Trap: the link applied to a batch mean. Two pairs that cancel must not look like an undecided one.
#[test]
fn the_loss_of_a_batch_is_the_mean_of_losses_and_not_the_loss_of_the_mean() {
    let dpo = build("diffusion-dpo", Value::Null);
    let (won, lost) = (at(&dpo, [0.099, 0.1, 0.1, 0.1]), at(&dpo, [0.101, 0.1, 0.1, 0.1]));
    let mean_of_losses = 0.5 * (won.loss + lost.loss);
    let loss_of_mean = at(&dpo, [0.1, 0.1, 0.1, 0.1]).loss;
    assert_eq!(loss_of_mean, LN_2);
    assert!((mean_of_losses - 0.5 * (-log_sigmoid(2.5) - log_sigmoid(-2.5))).abs() < 1e-9);
    assert!(mean_of_losses > 1.3, "{mean_of_losses}");
    // The lost pair pulls more than ten times as hard as the won one; the loss of the mean would pull both alike
    assert!(lost.d_winner > 10.0 * won.d_winner);
}

/// Trap: the link applied per latent element instead of once per pair.
#[test]
fn the_link_applies_once_per_pair_and_not_per_element() {
    let (winner, loser) = ([0.05, 0.15], [0.15, 0.06]);
    let mean = |elements: [f64; 2]| 0.5 * (elements[0] + elements[1]);
    for objective in [build("diffusion-dpo", Value::Null), build("mapo", Value::Null)] {
        let per_pair = at(&objective, [mean(winner), mean(loser), 0.1, 0.1]).loss;
        let per_element = mean([0, 1].map(|i| at(&objective, [winner[i], loser[i], 0.1, 0.1]).loss));
        assert!(per_element > 2.0 * per_pair, "{per_element} {per_pair}");
    }
}

/// Trap: x / (e^x - 1) with a plain exponential is 0/0 at a perfect fit.
#[test]
fn a_perfect_fit_of_the_winner_is_finite_in_both_forms_of_mapo() {
    for form in ["release", "paper"] {
        let outcome = at(&build("mapo", json!({"form": form})), [0.0, 0.1, 0.0, 0.0]);
        let numbers = [outcome.loss, outcome.d_winner, outcome.d_loser];
        assert!(numbers.iter().all(|x| x.is_finite()), "{outcome:?}");
    }
}

/// Trap: a sign that rewards a larger winner error.
#[test]
fn a_step_along_the_gradient_lowers_the_winners_error_and_raises_the_losers() {
    let objectives = OBJECTIVES.iter().map(|entry| build(entry.name, Value::Null));
    for objective in objectives.filter(|objective| objective.needs().loser) {
        let outcome = at(&objective, [0.1, 0.1, 0.1, 0.1]);
        assert!(outcome.d_winner > 0.0 && outcome.d_loser < 0.0, "{objective:?}");
    }
}

#[test]
#[should_panic(expected = "the objective needs the reference's error, which was not measured")]
fn a_missing_reference_is_a_bug_and_not_a_zero() {
    let unmeasured = PairInputs { reference: None, ..measured([0.1; 4]) };
    build("diffusion-dpo", Value::Null).of_pair(&unmeasured);
}

#[test]
fn nan_errors_stay_nan() {
    for name in OBJECTIVES.iter().map(|entry| entry.name) {
        assert!(at(&build(name, Value::Null), [f64::NAN, 0.1, 0.1, 0.1]).loss.is_nan(), "{name}");
    }
}

#[test]
fn settings_of_another_convention_are_warned_about() {
    let warned = |name, settings| !build(name, settings).warnings().is_empty();
    assert!(warned("mapo", json!({"form": "paper", "beta": 0.1})));
    assert!(warned("mapo", json!({"form": "release", "beta": 8})));
    for entry in OBJECTIVES.iter().filter(|entry| entry.short_for("beta_dpo").is_some()) {
        let name = entry.name;
        assert!(warned(name, json!({"beta": 1})) && warned(name, json!({"beta": 1e6})), "{name}");
    }
    assert!(warned("smpo", json!({"gamma": 0.1})));
    assert!(warned("kto", json!({"lambda_liked": 100})));
    assert!(warned("diffusion-dpo", json!({"safeguard_mu": 0})));
    for name in OBJECTIVES.iter().map(|entry| entry.name) {
        assert!(!warned(name, Value::Null), "{name}");
    }
}
