//! CLIP's two towers against transformers on tiny random networks: outputs and parameter gradients
//! (`golden/models/clip-*`).

use std::collections::BTreeMap;

use tastemaker_models::clip_text::{self, ClipText, ClipTextConfig};
use tastemaker_models::clip_vision::{self, ClipVision, ClipVisionConfig};
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

const TEXT: [&str; 3] = ["clip-text-legacy", "clip-text", "clip-text-projection"];
const VISION: &str = "clip-vision";

type Named = BTreeMap<String, Tensor>;

/// Stored tensors under today's names.
fn modern(stored: Named, name: fn(&str) -> Option<String>) -> Named {
    stored.into_iter().filter_map(|(stored, tensor)| Some((name(&stored)?, tensor))).collect()
}

fn text(golden: &Golden, role: Role, precision: DType) -> (ClipText, Vec<Trainable>) {
    let weights =
        Weights::from_source(modern(golden.weights(), clip_text::modern_name), role, precision, Device::Cpu);
    let network = ClipText::new(
        weights.root(),
        ClipTextConfig::from_json(&golden.config_json()).expect("every key is known"),
    );
    (network, weights.finish().expect("every tensor fits").0)
}

fn vision(golden: &Golden, role: Role, precision: DType) -> (ClipVision, Vec<Trainable>) {
    let weights = Weights::from_source(
        modern(golden.weights(), clip_vision::modern_name),
        role,
        precision,
        Device::Cpu,
    );
    let config = ClipVisionConfig::from_json(&golden.config_json()).expect("every key is known");
    let network = ClipVision::new(weights.root(), config, precision);
    (network, weights.finish().expect("every tensor fits").0)
}

/// Compares named outputs and, after the recorded loss on them, every parameter's gradient.
fn check(case: &str, golden: &Golden, outputs: &[(String, &Tensor)], trainable: Vec<Trainable>) {
    let tolerance = golden.tolerance("output");
    let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for (name, output) in outputs {
        assert_close(output, &golden.tensor(name), tolerance, &format!("{case}: {name}"));
        if let Some(target) = golden.get(&format!("target_{name}")) {
            loss += output.mse_loss(&target, Reduction::Mean);
        }
    }
    assert_close(&loss, &golden.tensor("loss"), tolerance, &format!("{case}: loss"));
    loss.backward();
    // Gradients are recorded under the names of the weights file, which may lack the prefix.
    let recorded = golden.gradients();
    let name = |full: String| match full.strip_prefix("text_model.") {
        Some(short) if recorded.contains_key(short) => short.to_owned(),
        _ => full,
    };
    let gradients: BTreeMap<_, _> = trainable.into_iter().map(|p| (name(p.name), p.tensor.grad())).collect();
    assert_gradients(&gradients, golden, golden.tolerance("gradient"));
}

fn numbered(hidden_states: &[Tensor]) -> Vec<(String, &Tensor)> {
    hidden_states.iter().enumerate().map(|(i, x)| (format!("hidden_states.{i}"), x)).collect()
}

#[test]
fn text_encoders_equal_transformers() {
    for case in TEXT {
        let golden = Golden::load("models", case);
        let (network, trainable) = text(&golden, Role::Trained, DType::F32);
        let y = network.forward(&golden.tensor("input_ids"));
        let mut outputs = numbered(&y.hidden_states);
        outputs.push(("last_hidden_state".into(), &y.last_hidden_state));
        outputs.push(("penultimate".into(), y.penultimate()));
        outputs.push(match &y.projected {
            Some(projected) => ("text_embeds".into(), projected),
            None => ("pooler_output".into(), &y.pooled),
        });
        check(case, &golden, &outputs, trainable);
    }
}

#[test]
fn the_image_tower_equals_transformers() {
    let golden = Golden::load("models", VISION);
    let (network, trainable) = vision(&golden, Role::Trained, DType::F32);
    let y = network.forward(&golden.tensor("pixel_values"));
    let last = y.hidden_states.len() - 1;
    let mut outputs = numbered(&y.hidden_states);
    outputs.push(("last_hidden_state".into(), &y.hidden_states[last]));
    outputs.push(("penultimate".into(), &y.hidden_states[last - 1]));
    outputs.push(("image_embeds".into(), &y.projected));
    check(VISION, &golden, &outputs, trainable);
}

#[test]
fn bfloat16_stays_close_to_f32() {
    for case in TEXT {
        let golden = Golden::load("models", case);
        let (network, trainable) = text(&golden, Role::Frozen, DType::Bf16);
        assert!(trainable.is_empty());
        let y = network.forward(&golden.tensor("input_ids")).last_hidden_state;
        assert_eq!(y.kind(), Kind::BFloat16);
        let error = relative_error(&y, &golden.tensor("last_hidden_state"));
        assert!(error < 0.05, "{case}: off by {error:e}");
    }
    let golden = Golden::load("models", VISION);
    let y = vision(&golden, Role::Frozen, DType::Bf16).0.forward(&golden.tensor("pixel_values"));
    let error = relative_error(&y.projected, &golden.tensor("image_embeds"));
    assert!(error < 0.05, "{VISION}: off by {error:e}");
}

#[test]
fn what_follows_the_end_of_text_changes_nothing() {
    let golden = Golden::load("models", "clip-text");
    let (network, _) = text(&golden, Role::Frozen, DType::F32);
    let ids = golden.tensor("input_ids");
    let (long, short) = (network.forward(&ids), network.forward(&ids.narrow(1, 0, 9)));
    let tolerance = golden.tolerance("output");
    assert_close(
        &short.last_hidden_state,
        &long.last_hidden_state.narrow(1, 0, 9),
        tolerance,
        "hidden state",
    );
    assert_close(&short.pooled, &long.pooled, tolerance, "pooled state");
}

#[test]
fn a_projection_that_is_not_in_the_checkpoint_is_reported() {
    let golden = Golden::load("models", "clip-text");
    let tensors = modern(golden.weights(), clip_text::modern_name);
    let weights = Weights::from_source(tensors, Role::Frozen, DType::F32, Device::Cpu);
    let mut config = ClipTextConfig::from_json(&golden.config_json()).unwrap();
    config.with_projection = true;
    ClipText::new(weights.root(), config);
    let report = weights.finish().unwrap_err();
    assert_eq!(report.missing, ["text_projection.weight"]);
    assert!(report.unexpected.is_empty() && report.misshapen.is_empty());
}
