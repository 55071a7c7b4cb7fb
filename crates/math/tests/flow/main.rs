//! Flow models: levels, densities and solvers against diffusers (`golden/flow`), published numbers, and there and back.

use serde::Deserialize;
use tastemaker_math::flow::{FlowSchedule, Mu, Shift, Spread, TimeShift};
use tastemaker_math::schedule::NoiseSchedule;

mod densities;
mod inversion;
mod levels;
mod plans;

fn golden<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/../../golden/flow/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).expect("a golden is JSON")
}

/// The schedule of a published scheduler_config.json.
fn family(name: &str) -> FlowSchedule {
    let of_size = |mu| FlowSchedule {
        shift: Shift::Dynamic(TimeShift::Exponential, mu),
        ..FlowSchedule::with_shift(1000, 1.0)
    };
    match name {
        "z-image-turbo" => FlowSchedule::with_shift(1000, 3.0),
        "z-image" => FlowSchedule::with_shift(1000, 6.0),
        "sd3" => FlowSchedule { spread: Spread::Table, ..FlowSchedule::with_shift(1000, 3.0) },
        "flux-1" => of_size(Mu::Linear { tokens: [256.0, 4096.0], mu: [0.5, 1.15] }),
        "flux-2-klein" => of_size(Mu::Empirical),
        other => panic!("no family {other}"),
    }
}

fn schedule(name: &str) -> NoiseSchedule {
    NoiseSchedule::of_flow(family(name)).expect("a published schedule")
}

#[track_caller]
fn assert_near(found: &[f64], wanted: &[f64], tolerance: f64, case: &str) {
    assert_eq!(found.len(), wanted.len(), "{case}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let close = tolerance * (1.0 + wanted.abs());
        assert!((found - wanted).abs() <= close, "{case}: number {i} is {found}, wanted {wanted}");
    }
}
