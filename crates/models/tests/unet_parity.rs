//! The UNet against diffusers on tiny random networks: outputs, gradients of every parameter and of the inputs
//! (`golden/models/unet-*`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

const CASES: [&str; 4] = ["unet-sd1", "unet-sd2v", "unet-sdxl", "unet-demo"];

fn network(golden: &Golden, role: Role, precision: DType) -> (UNet, Vec<Trainable>) {
    let weights = Weights::from_source(golden.weights(), role, precision, Device::Cpu);
    let network = UNet::new(weights.root(), UNetConfig::from_json(&golden.config_json()).unwrap(), precision);
    (network, weights.finish().unwrap().0)
}

fn conditioning(golden: &Golden, hidden: Tensor) -> Conditioning {
    let (pooled, time_ids) = (golden.get("text_embeds"), golden.get("time_ids"));
    Conditioning { pooled, time_ids, ..Conditioning::text(hidden) }
}

/// A recorded input that receives a gradient.
fn input(golden: &Golden, name: &str) -> Tensor {
    golden.tensor(name).copy().set_requires_grad(true)
}

#[test]
fn outputs_and_gradients_equal_diffusers() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
        let (network, trainable) = network(&golden, Role::Trained, DType::F32);
        let (sample, hidden) = (input(&golden, "sample"), input(&golden, "encoder_hidden_states"));
        let y = network.predict(
            &sample,
            &golden.tensor("timestep"),
            &conditioning(&golden, hidden.shallow_clone()),
        );
        assert_close(&y, &golden.tensor("output"), tolerance, &format!("{case}: output"));

        let loss = y.mse_loss(&golden.tensor("target"), Reduction::Mean);
        assert_close(&loss, &golden.tensor("loss"), tolerance, &format!("{case}: loss"));
        loss.backward();
        let gradients: BTreeMap<_, _> = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
        assert_gradients(&gradients, &golden, slope_tolerance);
        for (name, tensor) in [("sample", sample), ("encoder_hidden_states", hidden)] {
            let wanted = golden.tensor(&format!("grad_input.{name}"));
            assert_close(&tensor.grad(), &wanted, slope_tolerance, &format!("{case}: gradient of {name}"));
        }
    }
}

#[test]
fn bfloat16_stays_close_to_f32() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (network, trainable) = network(&golden, Role::Frozen, DType::Bf16);
        assert!(trainable.is_empty());
        let conditioning = conditioning(&golden, golden.tensor("encoder_hidden_states"));
        let y = network.predict(&golden.tensor("sample"), &golden.tensor("timestep"), &conditioning);
        assert_eq!(y.kind(), Kind::Float);
        let error = relative_error(&y, &golden.tensor("output"));
        assert!(error < 0.05, "{case}: off by {error:e}");
    }
}

#[test]
fn each_sample_is_computed_on_its_own() {
    let golden = Golden::load("models", "unet-sdxl");
    let (network, _) = network(&golden, Role::Frozen, DType::F32);
    let conditioning = conditioning(&golden, golden.tensor("encoder_hidden_states"));
    let (x, t) = (golden.tensor("sample"), golden.tensor("timestep"));
    let one = |i: i64| network.predict(&x.narrow(0, i, 1), &t.narrow(0, i, 1), &conditioning.narrow(i, 1));
    let apart = Tensor::cat(&[one(0), one(1)], 0);
    assert_close(&apart, &golden.tensor("output"), golden.tolerance("output"), "two samples, one at a time");
}
