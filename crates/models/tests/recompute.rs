//! A UNet whose layers are computed again in the backward pass, against the same network keeping everything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::Golden;
use tastemaker_torch::memory;
use tch::{Device, Kind, Reduction, Tensor};

/// A recorded network: trained whole, or by its recorded adapter where there is one.
fn network(golden: &Golden, precision: DType) -> (UNet, Vec<Trainable>) {
    let adapter = golden.path(FILE_NAME);
    let role = if adapter.exists() { Role::Frozen } else { Role::Trained };
    let mut weights = Weights::from_source(golden.weights(), role, precision, Device::Cpu);
    if adapter.exists() {
        weights = weights.with_lora(LoraFile::read(adapter).unwrap().unet.into_spec());
    }
    let network = UNet::new(weights.root(), UNetConfig::from_json(&golden.config_json()).unwrap(), precision);
    (network, weights.finish().unwrap().0)
}

/// The output, and the gradients of all that learns and, if wanted, of the inputs.
fn learn(case: &str, precision: DType, recompute: bool, inputs_learn: bool) -> Vec<(String, Tensor)> {
    let golden = Golden::load("models", case);
    let (network, trainable) = network(&golden, precision);
    network.set_recompute(recompute);
    let input = |name: &str| golden.tensor(name).copy().set_requires_grad(inputs_learn);
    let (sample, hidden) = (input("sample"), input("encoder_hidden_states"));
    let conditioning = Conditioning {
        pooled: golden.get("text_embeds"),
        time_ids: golden.get("time_ids"),
        ..Conditioning::text(hidden.shallow_clone())
    };
    let y = network.predict(&sample, &golden.tensor("timestep"), &conditioning);
    y.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
    let mut found = vec![("output".to_owned(), y.detach())];
    found.extend(trainable.into_iter().map(|p| (p.name, p.tensor.grad())));
    if inputs_learn {
        found.push(("sample".to_owned(), sample.grad()));
        found.push(("encoder_hidden_states".to_owned(), hidden.grad()));
    }
    found
}

#[test]
fn gradients_are_those_of_the_kept_graph_bit_for_bit() {
    let cases = [
        "unet-sd1",
        "unet-sd2v",
        "unet-sdxl",
        "unet-demo",
        "unet-sd1-lora",
        "unet-sd1-lora-conv",
        "unet-sd1-dora",
    ];
    for case in cases {
        for precision in [DType::F32, DType::Bf16] {
            let inputs_learn = precision == DType::F32;
            let wanted = learn(case, precision, false, inputs_learn);
            let found = learn(case, precision, true, inputs_learn);
            assert_eq!(found.len(), wanted.len());
            for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
                assert!(wanted.defined() && found.equal(wanted), "{case}, {precision:?}: {name}");
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_graph_of_a_forward_pass_takes_a_third_of_the_memory() {
    let golden = Golden::load("models", "unet-sd1");
    let (network, _) = network(&golden, DType::F32);
    let options = (Kind::Float, Device::Cpu);
    let batch = 16;
    let channels = golden.tensor("sample").size()[1];
    let sample = Tensor::ones([batch, channels, 32, 32], options);
    let hidden = golden.tensor("encoder_hidden_states").narrow(0, 0, 1).repeat([batch, 1, 1]);
    let timestep = golden.tensor("timestep").narrow(0, 0, 1).repeat([batch]);
    let graph = |recompute: bool| {
        network.set_recompute(recompute);
        memory::give_back();
        let before = memory::read().unwrap().resident as f64;
        let y = network.predict(&sample, &timestep, &Conditioning::text(hidden.shallow_clone()));
        assert!(y.requires_grad());
        memory::give_back();
        memory::read().unwrap().resident as f64 - before
    };
    graph(true); // what libtorch sets up once
    let (kept, recomputed) = (graph(false), graph(true));
    assert!(kept > 50e6 && recomputed < kept / 3.0, "{recomputed:e} of {kept:e} bytes");
}
