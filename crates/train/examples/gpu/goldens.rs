//! Networks on the device against what diffusers computed on a CPU (`golden/models`).

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, relative_error};
use tch::{Device, Reduction, Tensor};

use crate::{Setting, check, worse};

/// A device adds up in another order than the CPU that recorded.
const OUTPUT: f64 = 5e-5;
const GRADIENT: f64 = 5e-4;
const BFLOAT16: f64 = 5e-2;

pub fn run(setting: &Setting) {
    for case in ["unet-sd1", "unet-sd2v", "unet-sdxl", "unet-demo"] {
        unet(case, setting.device);
    }
    for case in ["vae", "vae-demo"] {
        vae(case, setting.device);
    }
}

fn unet(case: &str, device: Device) {
    let golden = Golden::load("models", case);
    let there = |name: &str| golden.tensor(name).to_device(device);
    let optional = |name: &str| golden.get(name).map(|tensor| tensor.to_device(device));
    let conditioning = || Conditioning {
        pooled: optional("text_embeds"),
        time_ids: optional("time_ids"),
        ..Conditioning::text(there("encoder_hidden_states"))
    };
    for (precision, name, limit) in [(DType::F32, "f32", OUTPUT), (DType::Bf16, "bf16", BFLOAT16)] {
        let weights = Weights::from_source(golden.weights(), Role::Trained, precision, device);
        let config = UNetConfig::from_json(&golden.config_json()).expect("recorded configurations are read");
        let network = UNet::new(weights.root(), config, precision);
        let (trainable, _) = weights.finish().expect("recorded weights fit");
        let y = network.predict(&there("sample"), &there("timestep"), &conditioning());
        check("goldens", &format!("{case} {name}"), error(&y, &golden.tensor("output")), limit);
        if precision == DType::F32 {
            y.mse_loss(&there("target"), Reduction::Mean).backward();
            check("goldens", &format!("{case}, gradients"), gradients(&golden, &trainable), GRADIENT);
        }
    }
}

fn vae(case: &str, device: Device) {
    let golden = Golden::load("models", case);
    let there = |name: &str| golden.tensor(name).to_device(device);
    let weights = Weights::from_source(golden.weights(), Role::Frozen, DType::F32, device);
    let config = VaeConfig::from_json(&golden.config_json()).expect("recorded configurations are read");
    let vae = AutoencoderKl::new(weights.root(), config, DType::F32);
    let (mean, log_variance) = vae.moments(&there("image"));
    let decoded = vae.decode_raw(&there("latent"));
    for (name, found) in [("mean", mean), ("logvar", log_variance), ("decoded", decoded)] {
        check("goldens", &format!("{case}, {name}"), error(&found, &golden.tensor(name)), OUTPUT);
    }
}

fn error(found: &Tensor, wanted: &Tensor) -> f64 {
    relative_error(&found.to_device(Device::Cpu), wanted)
}

/// The worst of all parameters, but for those that are rounding alone.
fn gradients(golden: &Golden, trainable: &[Trainable]) -> f64 {
    let recorded = golden.gradients();
    let errors = trainable.iter().filter(|parameter| !golden.vanishes(&parameter.name));
    errors.map(|parameter| error(&parameter.tensor.grad(), &recorded[&parameter.name])).fold(0.0, worse)
}
