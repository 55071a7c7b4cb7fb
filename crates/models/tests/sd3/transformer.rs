//! The transformer: outputs, gradients of every parameter, of the inputs and of LoRA factors.

use std::collections::BTreeMap;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::mmdit::{Mmdit, MmditConfig};
use tastemaker_models::nn::{LoraSpec, Role, Trainable, Weights};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, relative_error};
use tch::{Device, Kind, Reduction, Tensor};

const CASES: [&str; 2] = ["transformer-sd3", "transformer-sd35"];
const ADAPTED: [&str; 2] = ["transformer-sd35-lora", "transformer-sd35-dora"];

/// The table of positions is stored with the parameters, but never trained: it is among the recorded tensors.
fn parameters(golden: &Golden) -> BTreeMap<String, Tensor> {
    let case =
        golden.note("weights").map_or_else(|| golden.path(""), |other| golden.path("../..").join(other));
    let base = Golden::load("sd3", case.file_name().unwrap().to_str().unwrap());
    let mut weights = golden.weights();
    weights.insert("pos_embed.pos_embed".to_owned(), base.tensor("pos_embed"));
    weights
}

fn network(golden: &Golden, role: Role, precision: DType, lora: Option<LoraSpec>) -> (Mmdit, Vec<Trainable>) {
    let mut weights = Weights::from_source(parameters(golden), role, precision, Device::Cpu);
    if let Some(lora) = lora {
        weights = weights.with_lora(lora);
    }
    let config = MmditConfig::from_json(&golden.config_json()).unwrap();
    let network = Mmdit::new(weights.root(), config, precision);
    (network, weights.finish().unwrap().0)
}

/// The recorded adapter.
fn adapter(golden: &Golden) -> LoraSpec {
    LoraFile::read(golden.path(FILE_NAME)).unwrap().unet.into_spec()
}

const INPUTS: [&str; 3] = ["sample", "encoder_hidden_states", "pooled_projections"];

fn predict(golden: &Golden, network: &Mmdit, [sample, hidden, pooled]: &[Tensor; 3]) -> Tensor {
    let conditioning =
        Conditioning { pooled: Some(pooled.shallow_clone()), ..Conditioning::text(hidden.shallow_clone()) };
    network.predict(sample, &golden.tensor("timestep"), &conditioning)
}

/// The output, then the gradients of all that is trained and of the inputs.
fn pass(
    golden: &Golden,
    network: &Mmdit,
    trainable: Vec<Trainable>,
) -> (Tensor, BTreeMap<String, Tensor>, [Tensor; 3]) {
    let inputs = INPUTS.map(|name| golden.tensor(name).copy().set_requires_grad(true));
    let y = predict(golden, network, &inputs);
    y.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
    let gradients = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
    (y.detach(), gradients, inputs.map(|input| input.grad()))
}

#[test]
fn outputs_and_gradients_equal_diffusers() {
    for case in CASES.into_iter().chain(ADAPTED) {
        let golden = Golden::load("sd3", case);
        let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
        let is_adapted = ADAPTED.contains(&case);
        let role = if is_adapted { Role::Frozen } else { Role::Trained };
        let (network, trainable) = network(&golden, role, DType::F32, is_adapted.then(|| adapter(&golden)));
        let (y, gradients, slopes) = pass(&golden, &network, trainable);
        assert_close(&y, &golden.tensor("output"), tolerance, &format!("{case}: output"));
        assert_gradients(&gradients, &golden, slope_tolerance);
        for (name, slope) in INPUTS.iter().zip(&slopes) {
            let wanted = golden.tensor(&format!("grad_input.{name}"));
            assert_close(slope, &wanted, slope_tolerance, &format!("{case}: gradient of {name}"));
        }
    }
}

#[test]
fn gradients_of_recomputed_blocks_are_those_of_the_kept_graph_bit_for_bit() {
    for case in CASES.into_iter().chain(ADAPTED) {
        let golden = Golden::load("sd3", case);
        let run = |recompute: bool| {
            let is_adapted = ADAPTED.contains(&case);
            let role = if is_adapted { Role::Frozen } else { Role::Trained };
            let lora = is_adapted.then(|| adapter(&golden));
            let (network, trainable) = network(&golden, role, DType::F32, lora);
            network.set_recompute(recompute);
            pass(&golden, &network, trainable)
        };
        let ((kept, wanted, slopes), (again, found, slopes_again)) = (run(false), run(true));
        assert!(again.equal(&kept), "{case}: output");
        assert_eq!(found.len(), wanted.len());
        for (name, wanted) in &wanted {
            assert!(found[name].equal(wanted), "{case}: {name}");
        }
        for (name, (found, wanted)) in INPUTS.iter().zip(slopes_again.iter().zip(&slopes)) {
            assert!(found.equal(wanted), "{case}: {name}");
        }
    }
}

#[test]
fn bfloat16_stays_close_to_f32() {
    for case in CASES {
        let golden = Golden::load("sd3", case);
        let (network, trainable) = network(&golden, Role::Frozen, DType::Bf16, None);
        assert!(trainable.is_empty());
        let y = predict(&golden, &network, &INPUTS.map(|name| golden.tensor(name)));
        assert_eq!(y.kind(), Kind::Float);
        let error = relative_error(&y, &golden.tensor("output"));
        assert!(error < 0.05, "{case}: off by {error:e}");
    }
}

#[test]
fn a_fresh_network_has_the_positions_that_diffusers_stores_and_does_not_train_them() {
    for case in CASES {
        let golden = Golden::load("sd3", case);
        let weights = Weights::fresh(1, Role::Trained, DType::F32, Device::Cpu);
        let config = MmditConfig::from_json(&golden.config_json()).unwrap();
        drop(Mmdit::new(weights.root(), config, DType::F32));
        let (trainable, parameters) = weights.finish().unwrap();
        assert_close(&parameters["pos_embed.pos_embed"], &golden.tensor("pos_embed"), 1e-6, case);
        assert!(trainable.iter().all(|p| p.name != "pos_embed.pos_embed"), "{case}");
        assert_eq!(trainable.len() + 1, parameters.len(), "{case}");
    }
}
