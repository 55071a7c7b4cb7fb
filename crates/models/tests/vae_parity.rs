//! The VAE against diffusers on tiny random networks: moments, images, gradients (`golden/models/vae*`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;

use tastemaker_diffusion::Vae;
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

const CASES: [&str; 2] = ["vae", "vae-demo"];

fn vae(golden: &Golden, role: Role, precision: DType) -> (AutoencoderKl, Vec<Trainable>) {
    let weights = Weights::from_source(golden.weights(), role, precision, Device::Cpu);
    let vae =
        AutoencoderKl::new(weights.root(), VaeConfig::from_json(&golden.config_json()).unwrap(), precision);
    (vae, weights.finish().unwrap().0)
}

#[test]
fn outputs_and_gradients_equal_diffusers() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
        let (vae, trainable) = vae(&golden, Role::Trained, DType::F32);
        let input = |name: &str| golden.tensor(name).copy().set_requires_grad(true);
        let (image, latent) = (input("image"), input("latent"));
        let (mean, log_variance) = vae.moments(&image);
        let decoded = vae.decode_raw(&latent);
        let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
        for (name, tensor) in [("mean", &mean), ("logvar", &log_variance), ("decoded", &decoded)] {
            assert_close(tensor, &golden.tensor(name), tolerance, &format!("{case}: {name}"));
            loss += tensor.mse_loss(&golden.tensor(&format!("target_{name}")), Reduction::Mean);
        }
        assert_close(&loss, &golden.tensor("loss"), tolerance, &format!("{case}: loss"));
        loss.backward();
        let gradients: BTreeMap<_, _> = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
        assert_gradients(&gradients, &golden, slope_tolerance);
        for (name, tensor) in [("image", image), ("latent", latent)] {
            let wanted = golden.tensor(&format!("grad_input.{name}"));
            assert_close(&tensor.grad(), &wanted, slope_tolerance, &format!("{case}: gradient of {name}"));
        }
    }
}

#[test]
fn flat_and_nearly_flat_images_have_the_latents_of_diffusers() {
    let golden = Golden::load("models", "vae-flat");
    let (vae, _) = vae(&golden, Role::Frozen, DType::F32);
    let innermost = |x: &Tensor| x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    for name in ["gray", "white", "nearly", "softly"] {
        let image = golden.tensor(&format!("image.{name}"));
        for image in [innermost(&image), image] {
            let (mean, _) = vae.moments(&image);
            assert_close(&mean, &golden.tensor(&format!("mean.{name}")), golden.tolerance("output"), name);
        }
    }
}

#[test]
fn latents_carry_the_scaling_factor() {
    let golden = Golden::load("models", "vae");
    let (vae, _) = vae(&golden, Role::Frozen, DType::F32);
    let (tolerance, factor) = (golden.tolerance("output"), vae.config().scaling_factor);
    let posterior = vae.encode(&golden.tensor("image"));
    assert_close(&posterior.mean, &(golden.tensor("mean") * factor), tolerance, "mean");
    assert_close(&posterior.std, &(golden.tensor("std") * factor), tolerance, "std");
    let decoded = vae.decode(&(golden.tensor("latent") * factor));
    assert_close(&decoded, &golden.tensor("decoded"), tolerance, "decoded");
}

#[test]
fn bfloat16_stays_close_to_f32() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (vae, _) = vae(&golden, Role::Frozen, DType::Bf16);
        let (mean, _) = vae.moments(&golden.tensor("image"));
        let decoded = vae.decode_raw(&golden.tensor("latent"));
        assert_eq!((mean.kind(), decoded.kind()), (Kind::Float, Kind::Float));
        for (name, tensor) in [("mean", mean), ("decoded", decoded)] {
            let error = relative_error(&tensor, &golden.tensor(name));
            assert!(error < 0.05, "{case}: {name} is off by {error:e}");
        }
    }
}
