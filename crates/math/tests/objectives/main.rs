//! The preference methods: what each owes, what is known of it in closed form, and what goes wrong elsewhere.

use serde_json::Value;
use tastemaker_math::objectives::{
    ImageInputs, Label, NoiseLevel, Objective, Outcome, PairInputs, SettingsError, objective,
};

mod conformance;
mod flow;
mod losses;
mod relatives;
mod terms;

const LEVEL: NoiseLevel = NoiseLevel { n_train_timesteps: 1000, alpha_bar: 0.277, clean_gain: 0.277 / 0.723 };

fn build(name: &str, settings: Value) -> Objective {
    objective(name, &settings).expect("good settings")
}

fn refusal(name: &str, settings: Value) -> SettingsError {
    objective(name, &settings).expect_err("bad settings")
}

/// A pair of which everything was measured: its winner's and loser's errors, and the reference's on both.
fn measured([winner, loser, reference_winner, reference_loser]: [f64; 4]) -> PairInputs {
    PairInputs {
        winner,
        loser: Some(loser),
        reference: Some((reference_winner, reference_loser)),
        residual_product: Some(0.08),
        soft_label: Some(0.65),
        distances: Some((0.02, 0.05)),
        mean_gain: 0.0,
        level: LEVEL,
    }
}

fn at(objective: &Objective, errors: [f64; 4]) -> Outcome {
    objective.of_pair(&measured(errors))
}

/// A single image with the reference's error on it.
fn image(label: Label, error: f64, reference: f64) -> ImageInputs {
    ImageInputs { label, error, reference: Some(reference), distance: Some(0.02), mean_gain: 0.0 }
}
