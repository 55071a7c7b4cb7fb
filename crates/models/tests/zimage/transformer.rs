//! The transformer: outputs, gradients of every parameter, of the inputs and of LoRA factors.

use std::collections::BTreeMap;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::nn::{LoraSpec, Role, Trainable, Weights};
use tastemaker_models::zimage::{ZImage, ZImageConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

const CASES: [&str; 2] = ["transformer", "transformer-lora"];
const CAPTIONS: [&str; 3] = ["caption.0", "caption.1", "caption.2"];

fn network(golden: &Golden, precision: DType, lora: Option<LoraSpec>) -> (ZImage, Vec<Trainable>) {
    let role = if lora.is_some() || precision != DType::F32 { Role::Frozen } else { Role::Trained };
    let mut weights = Weights::from_source(golden.weights(), role, precision, Device::Cpu);
    if let Some(lora) = lora {
        weights = weights.with_lora(lora);
    }
    let network =
        ZImage::new(weights.root(), ZImageConfig::from_json(&golden.config_json()).unwrap(), precision);
    (network, weights.finish().unwrap().0)
}

fn adapter(golden: &Golden) -> Option<LoraSpec> {
    let path = golden.path(FILE_NAME);
    path.exists().then(|| LoraFile::read(path).unwrap().unet.into_spec())
}

/// The output, the gradients of all that is trained, and those of the inputs.
fn pass(case: &str, recompute: bool) -> (Tensor, BTreeMap<String, Tensor>, Vec<Tensor>) {
    let golden = Golden::load("zimage", case);
    let (network, trainable) = network(&golden, DType::F32, adapter(&golden));
    network.set_recompute(recompute);
    let input = |name: &str| golden.tensor(name).copy().set_requires_grad(true);
    let (sample, captions) = (input("sample"), CAPTIONS.map(input));
    let y = network.forward(&sample, &golden.tensor("timestep"), &captions);
    y.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
    let gradients = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
    (y.detach(), gradients, [sample].iter().chain(&captions).map(Tensor::grad).collect())
}

#[test]
fn outputs_and_gradients_equal_diffusers_for_captions_of_several_lengths() {
    for case in CASES {
        let golden = Golden::load("zimage", case);
        let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
        let (y, gradients, slopes) = pass(case, false);
        assert_close(&y, &golden.tensor("output"), tolerance, &format!("{case}: output"));
        assert_gradients(&gradients, &golden, slope_tolerance);
        for (name, slope) in ["sample"].iter().chain(&CAPTIONS).zip(&slopes) {
            let wanted = golden.tensor(&format!("grad_input.{name}"));
            assert_close(slope, &wanted, slope_tolerance, &format!("{case}: gradient of {name}"));
        }
    }
}

#[test]
fn gradients_of_recomputed_blocks_are_those_of_the_kept_graph_bit_for_bit() {
    for case in CASES {
        let ((kept, wanted, slopes), (again, found, slopes_again)) = (pass(case, false), pass(case, true));
        assert!(again.equal(&kept), "{case}: output");
        assert_eq!(found.len(), wanted.len());
        assert!(wanted.iter().all(|(name, wanted)| found[name].equal(wanted)), "{case}");
        assert!(
            slopes_again.iter().zip(&slopes).all(|(found, wanted)| found.equal(wanted)),
            "{case}: inputs"
        );
    }
}

#[test]
fn bfloat16_stays_close_to_f32() {
    let golden = Golden::load("zimage", "transformer");
    let (network, _) = network(&golden, DType::Bf16, None);
    let captions = CAPTIONS.map(|name| golden.tensor(name));
    let y = network.forward(&golden.tensor("sample"), &golden.tensor("timestep"), &captions);
    assert_eq!(y.kind(), Kind::Float);
    let error = relative_error(&y, &golden.tensor("output"));
    assert!(error < 0.05, "off by {error:e}");
}

#[test]
fn captions_of_one_length_may_come_as_conditioning() {
    let golden = Golden::load("zimage", "transformer");
    let (network, _) = network(&golden, DType::F32, None);
    let (caption, sample, timestep) =
        (golden.tensor("caption.1"), golden.tensor("sample"), golden.tensor("timestep"));
    let conditioning = Conditioning::text(Tensor::stack(&[&caption, &caption, &caption], 0));
    let found = network.predict(&sample, &timestep, &conditioning);
    let wanted = golden.tensor("output").narrow(0, 1, 1);
    assert_close(&found.narrow(0, 1, 1), &wanted, golden.tolerance("output"), "the second");
}
