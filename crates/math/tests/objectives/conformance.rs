//! What every entry of `OBJECTIVES` owes, present and future ones alike.

use super::{LEVEL, image, measured, refusal};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{
    Entry, ImageInputs, Label, OBJECTIVES, Objective, Outcome, PairInputs, SettingsError,
};

const MEAN_GAIN: f64 = 1e-3;

fn build(entry: &'static Entry, settings: &Value) -> Objective {
    Objective::new(entry, settings).expect("good settings")
}

/// The defaults of an objective and everything its golden was recorded with.
fn variants(entry: &'static Entry) -> Vec<Objective> {
    let recorded = golden(entry);
    let cases = recorded["cases"].as_array().expect("cases");
    let settings = cases.iter().map(|case| case["settings"].clone()).chain([Value::Null]);
    settings.map(|settings| build(entry, &settings)).collect()
}

fn golden(entry: &Entry) -> Value {
    let text = std::fs::read_to_string(repository().join(format!("golden/objectives/{}.json", entry.name)));
    serde_json::from_str(&text.expect("every objective has a golden")).expect("a golden is JSON")
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// (winner, loser, reference winner, reference loser): everything from 1e-8 to 1e2, near each other and far apart.
fn errors() -> impl Iterator<Item = [f64; 4]> {
    let corners = [1e-8, 1e-4, 0.1, 1.0, 1e2];
    let grid = corners.into_iter().flat_map(move |w| {
        corners.into_iter().flat_map(move |l| [[w, l, w, l], [w, l, l, w], [w, l, 0.1, 0.1]])
    });
    let drawn = (0..300).map(|i| {
        let mut keyed = Keyed::new(1, Stream::Data, i, 0);
        let spread = 10.0_f64.powf(-6.0 * keyed.uniform());
        let base = 10.0_f64.powf(10.0 * keyed.uniform() - 8.0);
        [0; 4].map(|_| (base * (spread * keyed.normal()).exp()).clamp(1e-8, 1e2))
    });
    grid.chain(drawn)
}

fn at(objective: &Objective, errors: [f64; 4]) -> Outcome {
    objective.of_pair(&PairInputs { mean_gain: MEAN_GAIN, ..measured(errors) })
}

fn for_every_objective(check: impl Fn(&'static Entry, &Objective)) {
    for entry in OBJECTIVES {
        variants(entry).iter().for_each(|objective| check(entry, objective));
    }
}

#[test]
fn names_are_unique_and_kebab_case() {
    let names: BTreeSet<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), OBJECTIVES.len());
    for name in names {
        let words_are_plain = name.split('-').all(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        });
        assert!(words_are_plain, "{name}");
    }
    for_every_objective(|entry, objective| assert_eq!(objective.name(), entry.name));
}

#[test]
fn summaries_and_sources_say_something() {
    for entry in OBJECTIVES {
        assert!(entry.summary.len() > 20 && !entry.summary.ends_with('.'), "{}", entry.name);
        assert!(entry.source.len() > 10, "{}", entry.name);
    }
}

#[test]
fn settings_print_and_parse_back() {
    for_every_objective(|entry, objective| {
        let printed = objective.settings();
        let parsed = build(entry, printed);
        assert_eq!(parsed.settings(), printed, "{}", entry.name);
        assert_eq!(parsed.corruption(), objective.corruption());
        let everywhere_equal = errors().all(|errors| at(&parsed, errors) == at(objective, errors));
        assert!(everywhere_equal, "{} {printed}", entry.name);
    });
}

#[test]
fn an_empty_table_means_the_defaults() {
    for entry in OBJECTIVES {
        assert_eq!(build(entry, &json!({})).settings(), build(entry, &Value::Null).settings());
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_match() {
    for entry in OBJECTIVES {
        let defaults = build(entry, &Value::Null);
        for key in defaults.settings().as_object().expect("a table").keys() {
            let misspelled = format!("{key}x");
            let error = refusal(entry.name, json!({ &misspelled: 1 })).to_string();
            assert!(
                error.contains(&format!("unknown setting \"{misspelled}\", did you mean \"{key}\"?")),
                "{error}"
            );
        }
        let error = refusal(entry.name, json!({"nothing-like-it": 1})).to_string();
        assert!(error.starts_with("unknown setting \"nothing-like-it\"; known are "), "{error}");
        let error = refusal(entry.name, json!([1])).to_string();
        assert!(error.ends_with("found [1]"), "{error}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_key() {
    for (name, settings, message) in [
        (
            "diffusion-dpo",
            json!({"beta": "big"}),
            "setting \"beta\": invalid type: string \"big\", expected f64",
        ),
        ("diffusion-dpo", json!({"beta": 0}), "setting \"beta\" must be a positive number, found 0"),
        ("mapo", json!({"beta": -1.5}), "setting \"beta\" must be a positive number, found -1.5"),
        (
            "mapo",
            json!({"form": "code"}),
            "setting \"form\": unknown variant `code`, expected `release` or `paper`",
        ),
        (
            "mapo",
            json!({"form": "paper", "snr_value": 0.5}),
            "setting \"snr_value\" must be skipped with form paper, whose score has no such scale, found 0.5",
        ),
        (
            "cdpo",
            json!({"label_smoothing": 0.5}),
            "setting \"label_smoothing\" must be at least 0 and below 0.5, where labels say nothing, found 0.5",
        ),
        (
            "dmpo",
            json!({"alpha": 0}),
            "setting \"alpha\" must be above 0 and below 0.5, which prefers neither image, found 0",
        ),
        ("smpo", json!({"steps": 0}), "setting \"steps\" must be at least 1, found 0"),
        ("smpo", json!({"eta": -1}), "setting \"eta\" must be between 0 and 1, found -1"),
        ("smpo", json!({"gamma": 0}), "setting \"gamma\" must be a positive number, found 0"),
        ("ddim-inpo", json!({"steps": 0}), "setting \"steps\" must be at least 1, found 0"),
        ("ddim-inpo", json!({"eta": 1.5}), "setting \"eta\" must be between 0 and 1, found 1.5"),
        (
            "ddim-inpo",
            json!({"grid": "release", "steps": 20}),
            "setting \"steps\" must be 10 on the release grid, found 20",
        ),
        (
            "ddim-inpo",
            json!({"model": "polcy"}),
            "setting \"model\": unknown variant `polcy`, expected `policy` or `reference`",
        ),
        (
            "linear-dpo",
            json!({"eta": 0.5}),
            "setting \"eta\" must be at least 0 and below 0.5, where every pair would weigh the same, found 0.5",
        ),
        (
            "sft",
            json!({"snr_gamma": 5, "weighting_scheme": "cosmap"}),
            "setting \"weighting_scheme\" must be none with snr_gamma, which is a weighting too, found Cosmap",
        ),
        (
            "kto",
            json!({"reference_point": "epoch"}),
            "setting \"reference_point\": unknown variant `epoch`, expected one of `previous-step`, `batch`, `zero`",
        ),
    ] {
        assert_eq!(refusal(name, settings).to_string(), message);
    }
}

#[test]
fn unknown_objectives_are_refused_with_the_nearest_match() {
    let error = refusal("difusion-dpo", Value::Null);
    assert!(matches!(error, SettingsError::UnknownObjective { nearest: Some("diffusion-dpo"), .. }));
    let names: Vec<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
    let known = names.join(", ");
    let message =
        format!("unknown objective \"difusion-dpo\", did you mean \"diffusion-dpo\"?; known are {known}");
    assert_eq!(error.to_string(), message);
}

#[test]
fn everything_is_finite_for_errors_from_1e_minus_8_to_1e2() {
    for_every_objective(|_, objective| {
        for errors in errors() {
            let outcome = at(objective, errors);
            let numbers = [outcome.loss, outcome.d_winner, outcome.d_loser, outcome.logit.unwrap_or(0.0)];
            assert!(numbers.iter().all(|x| x.is_finite()), "{objective:?} {errors:?} {outcome:?}");
        }
    });
}

#[test]
fn derivatives_equal_central_differences() {
    const H: f64 = 1e-6;
    for_every_objective(|entry, objective| {
        if entry.detached.is_some() {
            return;
        }
        for errors in errors() {
            let outcome = at(objective, errors);
            let slope = |which: usize| {
                let moved = |by: f64| {
                    let mut errors = errors;
                    errors[which] += by;
                    at(objective, errors).loss
                };
                // Five points: the error is of fourth order in the step
                (8.0 * (moved(H) - moved(-H)) - (moved(2.0 * H) - moved(-2.0 * H))) / (12.0 * H)
            };
            // Rounding of the loss, divided by the step, limits what differences can show
            let tolerance = 1e-6 + 1e-15 * (1.0 + outcome.loss.abs()) / H + 1e-6 * outcome.d_winner.abs();
            for (which, dual) in [(0, outcome.d_winner), (1, outcome.d_loser)] {
                let slope = slope(which);
                assert!(
                    (slope - dual).abs() <= tolerance,
                    "{objective:?} {errors:?} d[{which}]: {dual} or {slope}"
                );
            }
        }
    });
}

#[test]
fn a_better_winner_or_a_worse_loser_never_raises_the_loss() {
    for_every_objective(|entry, objective| {
        if entry.not_monotone.is_some() {
            return;
        }
        for errors in errors() {
            let outcome = at(objective, errors);
            assert!(
                outcome.d_winner >= 0.0 && outcome.d_loser <= 0.0,
                "{objective:?} {errors:?} {outcome:?}"
            );
            let loss = |winner_by: f64, loser_by: f64| {
                at(objective, [errors[0] * winner_by, errors[1] * loser_by, errors[2], errors[3]]).loss
            };
            assert!(loss(0.9, 1.0) <= outcome.loss, "{objective:?} {errors:?}: winner");
            assert!(loss(1.0, 1.1) <= outcome.loss, "{objective:?} {errors:?}: loser");
        }
    });
}

#[test]
fn a_loser_that_is_not_needed_changes_nothing() {
    for_every_objective(|_, objective| {
        if objective.needs().loser {
            return;
        }
        for errors @ [w, l, rw, rl] in errors() {
            assert_eq!(at(objective, errors), at(objective, [w, 2.0 * l + 1.0, rw, rl]));
            assert_eq!(at(objective, errors).d_loser, 0.0);
        }
    });
}

#[test]
fn the_logit_is_positive_exactly_where_the_model_sides_with_the_label() {
    for_every_objective(|_, objective| {
        for [w, l, rw, rl] in errors() {
            let logit = |w: f64, l: f64, rw: f64, rl: f64| at(objective, [w, l, rw, rl]).logit;
            let (Some(there), Some(swapped)) = (logit(w, l, rw, rl), logit(l, w, rl, rw)) else {
                return;
            };
            assert_eq!(there, -swapped, "{objective:?}: swapping winner and loser flips the logit");
        }
        let decided = at(objective, [0.1, 0.2, 0.15, 0.15]).logit;
        assert!(decided.is_none_or(|logit| logit > 0.0), "{objective:?}");
    });
}

#[test]
fn single_images_are_a_matter_of_the_methods_that_say_so() {
    for_every_objective(|_, objective| {
        for [w, l, rw, rl] in errors() {
            if !objective.is_unpaired() {
                return;
            }
            let [liked, disliked] = [(Label::Liked, w, rw), (Label::Disliked, l, rl)]
                .map(|(label, w, rw)| ImageInputs { mean_gain: MEAN_GAIN, ..image(label, w, rw) })
                .map(|image| objective.of_image(&image));
            assert_eq!([liked.d_loser, disliked.d_loser], [0.0; 2], "one image has one error");
            let pair = at(objective, [w, l, rw, rl]);
            assert_eq!(pair.loss, 0.5 * (liked.loss + disliked.loss), "a pair is the mean of its two images");
            assert_eq!([pair.d_winner, pair.d_loser], [0.5 * liked.d_winner, 0.5 * disliked.d_winner]);
        }
    });
}

#[test]
fn golden_rows_match() {
    for entry in OBJECTIVES {
        let golden = golden(entry);
        assert_eq!(golden["objective"], entry.name);
        assert_eq!(golden["n_train_timesteps"], LEVEL.n_train_timesteps);
        let columns: Vec<String> = serde_json::from_value(golden["columns"].clone()).expect("names");
        let column = |name: &str| columns.iter().position(|column| column == name);
        for case in golden["cases"].as_array().expect("cases") {
            let objective = build(entry, &case["settings"]);
            let (relative, absolute) = if case["tiny"] == true { (1e-11, 1e-15) } else { (1e-9, 1e-12) };
            let rows: Vec<Vec<f64>> = serde_json::from_value(case["rows"].clone()).expect("rows of numbers");
            assert!(!rows.is_empty());
            for row in rows {
                assert_eq!(row.len(), columns.len());
                let (errors, expected) = row.split_at(row.len() - 3);
                let of = |name| column(name).map(|at| row[at]);
                let inputs = PairInputs {
                    reference: of("reference_winner").zip(of("reference_loser")),
                    soft_label: of("soft_label"),
                    mean_gain: of("mean_gain").unwrap_or(0.0),
                    ..measured([errors[0], errors[1], 0.0, 0.0])
                };
                let Outcome { loss, d_winner, d_loser, .. } = objective.of_pair(&inputs);
                for (ours, theirs) in [loss, d_winner, d_loser].into_iter().zip(expected) {
                    let tolerance = absolute + relative * theirs.abs();
                    assert!((ours - theirs).abs() <= tolerance, "{objective:?} {row:?}: {ours}");
                }
            }
        }
    }
}

#[test]
fn every_objective_has_a_page_that_names_its_settings() {
    for entry in OBJECTIVES {
        let path = repository().join(format!("docs/methods/{}.md", entry.name));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let defaults = build(entry, &Value::Null);
        for key in defaults.settings().as_object().expect("a table").keys() {
            assert!(page.contains(&format!("`{key}`")), "{}: setting {key} is missing", path.display());
        }
    }
}
