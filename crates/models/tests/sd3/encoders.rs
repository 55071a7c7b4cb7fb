//! The VAE of 16 channels and the T5 encoder.

use std::collections::BTreeMap;

use tastemaker_diffusion::Vae;
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::t5::{T5Config, T5Encoder};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

#[test]
fn the_vae_of_16_channels_equals_diffusers_and_shifts_before_it_scales() {
    let golden = Golden::load("sd3", "vae");
    let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
    let weights = Weights::from_source(golden.weights(), Role::Trained, DType::F32, Device::Cpu);
    let config = VaeConfig::from_json(&golden.config_json()).unwrap();
    let vae = AutoencoderKl::new(weights.root(), config, DType::F32);
    let (trainable, _) = weights.finish().unwrap();

    let (mean, log_variance) = vae.moments(&golden.tensor("image"));
    let decoded = vae.decode_raw(&golden.tensor("latent"));
    let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for (name, tensor) in [("mean", &mean), ("logvar", &log_variance), ("decoded", &decoded)] {
        assert_close(tensor, &golden.tensor(name), tolerance, name);
        loss += tensor.mse_loss(&golden.tensor(&format!("target_{name}")), Reduction::Mean);
    }
    loss.backward();
    let gradients: BTreeMap<_, _> = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
    assert_gradients(&gradients, &golden, slope_tolerance);

    assert_close(&vae.encode(&golden.tensor("image")).mean, &golden.tensor("scaled"), tolerance, "scaled");
    let of_scaled = vae.decode(&golden.tensor("latent"));
    assert_close(&of_scaled, &golden.tensor("of_scaled"), tolerance, "decoded of scaled latents");
}

fn t5(golden: &Golden, role: Role, precision: DType) -> (T5Encoder, BTreeMap<String, Tensor>) {
    let weights = Weights::from_source(golden.weights(), role, precision, Device::Cpu);
    let encoder = T5Encoder::new(weights.root(), T5Config::from_json(&golden.config_json()).unwrap());
    let (trainable, _) = weights.finish().unwrap();
    (encoder, trainable.into_iter().map(|p| (p.name, p.tensor)).collect())
}

#[test]
fn the_t5_encoder_equals_transformers() {
    let golden = Golden::load("sd3", "t5");
    let (encoder, trainable) = t5(&golden, Role::Trained, DType::F32);
    let output = encoder.forward(&golden.tensor("input_ids"));
    assert_close(&output, &golden.tensor("output"), golden.tolerance("output"), "output");
    output.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
    let gradients = trainable.into_iter().map(|(name, tensor)| (name, tensor.grad())).collect();
    assert_gradients(&gradients, &golden, golden.tolerance("gradient"));
}

#[test]
fn the_t5_encoder_in_bfloat16_stays_close() {
    let golden = Golden::load("sd3", "t5");
    let (encoder, _) = t5(&golden, Role::Frozen, T5Config::runs_in(DType::F16));
    let output = encoder.forward(&golden.tensor("input_ids"));
    assert_eq!(output.kind(), Kind::BFloat16);
    let error = relative_error(&output.to_kind(Kind::Float), &golden.tensor("output"));
    assert!(error < 0.05, "off by {error:e}");
}
