//! The relatives of Diffusion-DPO: where they meet it, how they differ from it, and what each holds to.

use super::{at, build, image, measured};
use serde_json::{Value, json};
use tastemaker_math::dual::sigmoid;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{
    Corruption, Grid, ImageInputs, InversionModel, Label, MeanGain, OBJECTIVES, Objective, Outcome,
    PairInputs,
};

fn sure(objective: &Objective, errors: [f64; 4], soft_label: f64) -> Outcome {
    objective.of_pair(&PairInputs { soft_label: Some(soft_label), ..measured(errors) })
}

/// An outcome where the logit of the relative methods is `logit` at `beta`.
fn at_logit(objective: &Objective, logit: f64, beta: f64) -> Outcome {
    at(objective, [0.25, 0.25, 0.25 + 2.0 * logit / beta, 0.25])
}

/// Errors near each other, as in training.
fn drawn() -> impl Iterator<Item = [f64; 4]> {
    (0..200).map(|i| {
        let mut keyed = Keyed::new(7, Stream::Data, i, 0);
        let spread = 10.0_f64.powf(-4.0 * keyed.uniform());
        [0; 4].map(|_| 0.1 * (spread * keyed.normal()).exp())
    })
}

#[test]
fn labels_without_mistakes_make_both_forms_of_cdpo_diffusion_dpo() {
    let dpo = build("diffusion-dpo", json!({"beta": 3000}));
    for form in ["conservative", "robust"] {
        let cdpo = build("cdpo", json!({"beta": 3000, "label_smoothing": 0, "form": form}));
        for errors in drawn() {
            assert_eq!(at(&cdpo, errors), at(&dpo, errors));
        }
    }
}

#[test]
fn a_certain_label_at_scale_one_makes_smpo_ddim_inpo() {
    let inpo = build("ddim-inpo", json!({"steps": 5, "eta": 0}));
    let smpo = build("smpo", json!({"gamma": 1}));
    assert_eq!(smpo.corruption(), inpo.corruption());
    for errors in drawn() {
        assert_eq!(sure(&smpo, errors, 1.0), at(&inpo, errors));
    }
}

#[test]
fn settings_reach_the_corruption() {
    let corruption = |name, settings| build(name, settings).corruption();
    let (eta, grid) = (0.0, Grid::Exact);
    let (policy, reference) = (InversionModel::Policy, InversionModel::Reference);
    for (name, settings, expected) in [
        ("ddim-inpo", json!({}), Corruption::DdimInversion { steps: 10, eta: 0.1, model: policy, grid }),
        (
            "ddim-inpo",
            json!({"steps": 4, "eta": 0, "model": "reference"}),
            Corruption::DdimInversion { steps: 4, eta, model: reference, grid },
        ),
        (
            "smpo",
            json!({"steps": 10, "model": "reference"}),
            Corruption::DdimInversion { steps: 10, eta, model: reference, grid },
        ),
        ("diffusion-dpo", json!({}), Corruption::Forward),
    ] {
        assert_eq!(corruption(name, settings), expected, "{name}");
    }
}

#[test]
fn a_pair_that_scores_cannot_decide_leaves_smpo_alone() {
    let smpo = build("smpo", Value::Null);
    for errors in drawn() {
        let outcome = sure(&smpo, errors, 0.5);
        assert_eq!((outcome.d_winner.abs(), outcome.d_loser.abs()), (0.0, 0.0));
    }
}

/// Source: the range of a softmax over two scores between 0 and 1.
#[test]
fn published_soft_labels_scale_smpos_logit_by_up_to_4_62() {
    let smpo = build("smpo", Value::Null);
    let errors = [0.100, 0.101, 0.1, 0.1];
    let logit = sure(&smpo, errors, sigmoid(1.0)).logit.expect("a logit");
    assert!((logit - 4.6212).abs() < 1e-4, "{logit}");
}

#[test]
#[should_panic(expected = "the objective needs a soft label, which was not measured")]
fn a_missing_soft_label_is_a_bug_and_not_a_certainty() {
    build("smpo", Value::Null).of_pair(&PairInputs { soft_label: None, ..measured([0.1; 4]) });
}

#[test]
fn methods_declare_what_they_need() {
    for entry in OBJECTIVES {
        let objective = build(entry.name, Value::Null);
        let needs = objective.needs();
        assert!(!needs.residual_product, "{}: that is the safeguard's", entry.name);
        assert!(needs.mean_gain == MeanGain::Zero || objective.is_unpaired(), "{}", entry.name);
    }
    assert!(build("smpo", Value::Null).needs().soft_label);
    assert!(!build("ddim-inpo", Value::Null).needs().soft_label);
    let kto = build("kto", Value::Null);
    assert!(kto.is_unpaired() && kto.needs().mean_gain == MeanGain::PreviousStep);
    for (point, gain) in
        [("previous-step", MeanGain::PreviousStep), ("batch", MeanGain::Batch), ("zero", MeanGain::Zero)]
    {
        assert_eq!(build("kto", json!({"reference_point": point})).needs().mean_gain, gain);
    }
}

/// With u the logit of Diffusion-DPO, whose first gradient in u is -1/2.
#[test]
fn first_gradients_are_known_multiples_of_diffusion_dpos() {
    let beta = 4000.0;
    let first = |name: &str, mut settings: Value| {
        settings["beta"] = json!(beta);
        let outcome = at_logit(&build(name, settings), 0.0, beta);
        assert_eq!(outcome.d_winner, -outcome.d_loser, "{name}");
        outcome.d_winner
    };
    let dpo = first("diffusion-dpo", json!({}));
    assert_eq!(dpo, 0.25 * beta);
    for (name, settings, multiple) in [
        ("hinge", json!({}), 2.0),
        ("ipo", json!({}), 2.0),
        ("cdpo", json!({"label_smoothing": 0.1}), 0.8),
        ("cdpo", json!({"label_smoothing": 0.1, "form": "robust"}), 1.25),
        ("dmpo", json!({"alpha": 0.01}), 0.5 * 99.0_f64.ln()),
        ("smpo", json!({"gamma": 10}), 3.0),
        // Half of beta is in DPO's logit, and a pair is the mean of its images
        ("kto", json!({"reference_point": "zero"}), 0.5),
    ] {
        let ours = first(name, settings);
        assert!((ours - multiple * dpo).abs() < 1e-9 * dpo, "{name}: {ours}");
    }
}

#[test]
fn methods_with_a_target_rest_there_and_pull_back_beyond_it() {
    let beta = 2000.0;
    for (name, settings, target) in [
        ("ipo", json!({"beta": beta}), 0.5),
        ("cdpo", json!({"beta": beta, "label_smoothing": 0.1}), 9.0_f64.ln()),
        ("dmpo", json!({"beta": beta, "alpha": 0.1}), 9.0_f64.ln()),
    ] {
        let objective = build(name, settings);
        let pull = |logit| at_logit(&objective, logit, beta).d_winner;
        assert!(pull(target).abs() < 1e-9 * beta, "{name}: {}", pull(target));
        assert!(pull(target - 0.1) > 0.0 && pull(target + 0.1) < 0.0, "{name}");
    }
    let hinge = build("hinge", json!({"beta": beta}));
    let pull = |logit| at_logit(&hinge, logit, beta).d_winner;
    assert_eq!([pull(-3.0), pull(0.9), pull(1.1), pull(9.0)], [0.5 * beta, 0.5 * beta, 0.0, 0.0]);
}

/// The published form is `(margin - 1 / (2 b))^2` with `b = 0.5 beta`.
#[test]
fn ipo_aims_at_a_margin_of_one_over_beta() {
    let ipo = build("ipo", json!({"beta": 4000}));
    let outcome = at(&ipo, [0.1, 0.1 + 1.0 / 4000.0, 0.1, 0.1]);
    assert!(outcome.loss < 1e-24 && outcome.d_winner.abs() < 1e-8, "{outcome:?}");
}

/// Where cross entropy and divergence part: the pair the model is most wrong about.
#[test]
fn dmpo_gives_up_on_hopeless_pairs_and_cdpo_does_not() {
    let beta = 2000.0;
    let pull = |name, settings| at_logit(&build(name, settings), -20.0, beta).d_winner;
    assert!(pull("dmpo", json!({"beta": beta, "alpha": 0.1})) < 1e-4);
    assert!(pull("cdpo", json!({"beta": beta, "label_smoothing": 0.1})) > 0.4 * beta);
}

/// Chowdhury et al. 2024, lemma 3.1.
#[test]
fn the_mean_of_robust_losses_over_wrong_and_right_labels_is_diffusion_dpos() {
    let wrong = 0.2;
    let robust = build("cdpo", json!({"beta": 2000, "label_smoothing": wrong, "form": "robust"}));
    let dpo = build("diffusion-dpo", json!({"beta": 2000}));
    for logit in [-3.0, -0.1, 0.0, 0.7, 4.0] {
        let loss = |objective: &Objective, logit| at_logit(objective, logit, 2000.0).loss;
        let mean = (1.0 - wrong) * loss(&robust, logit) + wrong * loss(&robust, -logit);
        assert!((mean - loss(&dpo, logit)).abs() < 1e-12, "{logit}");
    }
}

#[test]
fn kto_wants_liked_images_to_gain_and_disliked_ones_to_lose() {
    let kto = build("kto", Value::Null);
    let one = |label, error| kto.of_image(&image(label, error, 0.1));
    let (liked, disliked) = (one(Label::Liked, 0.099), one(Label::Disliked, 0.099));
    assert!(liked.loss < one(Label::Liked, 0.1).loss && one(Label::Liked, 0.1).loss == 0.5);
    assert!(disliked.loss > one(Label::Disliked, 0.1).loss && one(Label::Disliked, 0.1).loss == 0.5);
    assert!(liked.d_winner > 0.0 && liked.d_winner == -disliked.d_winner, "{liked:?} {disliked:?}");
    assert!(liked.logit.expect("a logit") > 0.0 && liked.logit == disliked.logit.map(|logit| -logit));
    // beta 1000 times a gain of 0.001
    assert!((liked.loss - sigmoid(-1.0)).abs() < 1e-12);
}

#[test]
fn ktos_reference_point_is_what_an_image_has_to_gain() {
    let gained = 0.002;
    let one = |settings, mean_gain| {
        let image = image(Label::Liked, 0.1 - gained, 0.1);
        build("kto", settings).of_image(&ImageInputs { mean_gain, ..image })
    };
    let (at_point, ignored) = (one(json!({}), gained), one(json!({"reference_point": "zero"}), 0.0));
    assert!((at_point.loss - 0.5).abs() < 1e-12 && at_point.logit.expect("a logit").abs() < 1e-12);
    assert!((ignored.loss - sigmoid(-2.0)).abs() < 1e-12);
    // Where images lost on average, the point is 0
    assert_eq!(one(json!({}), -1.0), ignored);
    assert!(one(json!({}), f64::NAN).loss.is_nan(), "a gain that is not a number is not 0");
}

#[test]
fn ktos_weights_are_those_of_the_labels() {
    let one = |settings, label| build("kto", settings).of_image(&image(label, 0.1, 0.1003)).loss;
    for (key, weighed, other) in
        [("lambda_liked", Label::Liked, Label::Disliked), ("lambda_disliked", Label::Disliked, Label::Liked)]
    {
        assert_eq!(one(json!({ key: 2 }), weighed), 2.0 * one(json!({}), weighed));
        assert_eq!(one(json!({ key: 2 }), other), one(json!({}), other));
    }
}

#[test]
#[should_panic(expected = "diffusion-dpo learns from pairs and was given a single image")]
fn a_single_image_for_a_method_of_pairs_is_a_bug() {
    build("diffusion-dpo", Value::Null).of_image(&image(Label::Liked, 0.1, 0.1));
}
