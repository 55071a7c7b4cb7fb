//! The text encoder.

use std::collections::BTreeMap;

use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::qwen3::{Qwen3, Qwen3Config, is_after, modern_name};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

fn encoder(
    golden: &Golden,
    role: Role,
    precision: DType,
    n_layers: i64,
) -> (Qwen3, BTreeMap<String, Tensor>) {
    let prefixed = |name: &str| format!("model.{name}");
    let stored = golden.weights().into_iter().filter_map(|(name, tensor)| {
        let name = modern_name(&prefixed(&name))?;
        (n_layers > 2 || !is_after(&name, n_layers)).then_some((name, tensor))
    });
    let weights = Weights::from_source(stored.collect::<BTreeMap<_, _>>(), role, precision, Device::Cpu);
    let config = Qwen3Config::from_json(&golden.config_json()).unwrap();
    let encoder = Qwen3::new(weights.root(), config, n_layers);
    let (trainable, _) = weights.finish().unwrap();
    (encoder, trainable.into_iter().map(|p| (p.name, p.tensor)).collect())
}

#[test]
fn every_hidden_state_and_every_gradient_equals_transformers() {
    let golden = Golden::load("zimage", "qwen3");
    let tolerance = golden.tolerance("output");
    let (encoder, trainable) = encoder(&golden, Role::Trained, DType::F32, 3);
    let states = encoder.forward(&golden.tensor("input_ids"));
    assert_eq!(states.len(), 4);
    for (i, state) in states.iter().enumerate() {
        assert_close(state, &golden.tensor(&format!("hidden_states.{i}")), tolerance, &format!("state {i}"));
    }
    assert_close(&states[3], &golden.tensor("output"), tolerance, "output");
    let target = golden.tensor("target");
    let loss = states[2].mse_loss(&target, Reduction::Mean) + states[3].mse_loss(&target, Reduction::Mean);
    loss.backward();
    let gradients = trainable.into_iter().map(|(name, tensor)| (name, tensor.grad())).collect();
    assert_gradients(&gradients, &golden, golden.tolerance("gradient"));
}

#[test]
fn layers_that_nobody_reads_are_not_needed() {
    let golden = Golden::load("zimage", "qwen3");
    let ids = golden.tensor("input_ids");
    let whole = encoder(&golden, Role::Frozen, DType::F32, 3).0.forward(&ids);
    let first = encoder(&golden, Role::Frozen, DType::F32, 2).0.forward(&ids);
    assert_eq!(first.len(), 3);
    assert!(first.iter().zip(&whole).all(|(found, wanted)| found.equal(wanted)));
}

#[test]
fn fillers_at_the_end_change_nothing_before_them() {
    let golden = Golden::load("zimage", "qwen3");
    let ids = golden.tensor("input_ids");
    let (encoder, _) = encoder(&golden, Role::Frozen, DType::F32, 2);
    let (whole, short) = (encoder.forward(&ids), encoder.forward(&ids.narrow(1, 0, 9)));
    assert_close(&short[2], &whole[2].narrow(1, 0, 9), 1e-5, "the first tokens");
}

#[test]
fn bfloat16_stays_close() {
    let golden = Golden::load("zimage", "qwen3");
    let (encoder, _) = encoder(&golden, Role::Frozen, DType::Bf16, 2);
    let states = encoder.forward(&golden.tensor("input_ids"));
    let error = relative_error(&states[2].to_kind(Kind::Float), &golden.tensor("hidden_states.2"));
    assert!(error < 0.05, "off by {error:e}");
}
