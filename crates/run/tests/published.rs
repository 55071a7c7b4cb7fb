//! Plans against the settings that were published.

#![expect(clippy::unwrap_used, reason = "a test that cannot read a recipe should stop")]

use std::fs;
use std::path::Path;

use tastemaker_math::objectives::{OBJECTIVES, Objective, objective};
use tastemaker_run::health::{Alarm, Severity, outside_published};
use tastemaker_run::{Overrides, Plan, Recipe, resolve};

const SD15: u64 = 859_520_964;

fn plan(text: &str) -> Plan {
    resolve(Recipe::parse(Path::new("r.toml"), text).unwrap(), Overrides::default()).unwrap()
}

fn with(method: &str, adapter: &str, rate: &str) -> Plan {
    plan(&format!(
        "output_dir = \"out\"\n[model]\npretrained_model_name_or_path = \"m\"\n[data]\ntrain_data_dir = \"d\"\n\
         [method]\n{method}\n[adapter]\nadapter_type = \"{adapter}\"\n[optimizer]\n{rate}\n\
         [train]\nmax_train_steps = 10\ntrain_batch_size = 8\ngradient_accumulation_steps = 256\n"
    ))
}

#[test]
fn every_recipe_of_ours_is_within_the_published_ranges() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut n = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let plan = plan(&fs::read_to_string(&path).unwrap());
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_flow = ["sd35", "zimage"].iter().any(|family| name.starts_with(family));
            assert_eq!(outside_published(&plan, SD15, is_flow), [], "{name}");
            n += 1;
        }
    }
    assert!(n > 10, "{n}");
}

#[test]
fn published_methods_have_a_range_for_full_training_and_for_a_lora() {
    for entry in OBJECTIVES.iter().filter(|entry| !entry.published.is_empty()) {
        let objective = Objective::new(entry, &serde_json::json!({})).unwrap();
        for full in [true, false] {
            let row = objective.published(full, false).unwrap();
            assert!(
                row.learning_rate.0 <= row.learning_rate.1 && row.beta.is_none_or(|(low, high)| low <= high)
            );
        }
    }
    let paper = objective("mapo", &serde_json::json!({"form": "paper"})).unwrap();
    assert_eq!(paper.published(true, false).unwrap().beta, Some((8.0, 1024.0)));
}

#[test]
fn betas_of_a_flow_are_judged_by_those_published_for_flows() {
    let dpo = |beta: f64| {
        with(&format!("name = \"diffusion-dpo\"\nbeta = {beta:.1}"), "lora", "learning_rate = 1e-5")
    };
    assert_eq!(outside_published(&dpo(100.0), SD15, true), []);
    assert!(matches!(outside_published(&dpo(100.0), SD15, false)[..], [Alarm::Beta { .. }]));
    assert!(matches!(outside_published(&dpo(20_000.0), SD15, true)[..], [Alarm::Beta { .. }]));
    // No run of MaPO on a flow was published.
    assert_eq!(outside_published(&with("name = \"mapo\"", "lora", "learning_rate = 1.0"), SD15, true), []);
}

#[test]
fn the_script_default_of_5e_4_and_a_beta_of_one_are_far_from_what_was_published() {
    let found = outside_published(
        &with("name = \"diffusion-dpo\"\nbeta = 1.0", "lora", "learning_rate = 5e-4"),
        SD15,
        false,
    );
    assert!(matches!(found[..], [Alarm::LearningRate { .. }, Alarm::Beta { .. }]), "{found:?}");
    assert!(found.iter().all(|alarm| alarm.severity() == Severity::Warning && alarm.step() == 0));
    assert_eq!(
        found[0].to_string(),
        "learning rate 5e-4 is far above the published 1e-5 (diffusers' research project diffusion_dpo); lower it unless this is meant"
    );
    assert!(
        found[1].to_string().starts_with("beta 1 is far below the published 2000 to 5000 ("),
        "{}",
        found[1]
    );
}

#[test]
fn the_effective_rate_counts_and_what_is_within_a_factor_of_three_is_not_far() {
    let dpo = "name = \"diffusion-dpo\"\nbeta = 5000.0";
    assert_eq!(
        outside_published(&with(dpo, "full", "learning_rate = 1e-8\nscale_lr = true"), SD15, false),
        []
    );
    assert_eq!(outside_published(&with(dpo, "full", "learning_rate = 1e-8"), SD15, false).len(), 1);
    assert_eq!(outside_published(&with(dpo, "full", "learning_rate = 6e-5"), SD15, false), []);
    assert_eq!(outside_published(&with(dpo, "full", "learning_rate = 7e-5"), SD15, false).len(), 1);
}

#[test]
fn a_network_much_smaller_than_those_published_is_not_compared() {
    let plan = with("name = \"diffusion-dpo\"", "full", "learning_rate = 6e-4");
    assert_eq!(outside_published(&plan, 4_500_000, false), []);
}
