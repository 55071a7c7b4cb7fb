//! One training step of each method against a script of ours in f64 (`golden/losses`): errors, logits, losses and the
//! gradient of every parameter.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::{BTreeMap, HashMap};

use common::{Network, network, schedule, take_gradients};
use serde_json::{Value, json};
use tastemaker_diffusion::corruption::{Inversion, invert};
use tastemaker_diffusion::noise::NoiseKey;
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::keyed::Stream;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{Grid, Label, objective};
use tastemaker_models::nn::Role;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, golden_dir};
use tastemaker_torch::tensors;
use tastemaker_train::data::Batch;
use tastemaker_train::draws::{Draws, Noise};
use tastemaker_train::reference::Reference;
use tastemaker_train::step::{Engine, PairRecord, StepContext};
use tch::{Kind, Tensor};

const N_PAIRS: usize = 4;

/// What all methods are given: the pairs, and the draws for them.
struct Given {
    tensors: BTreeMap<String, Tensor>,
}

impl Given {
    fn load() -> Self {
        Self { tensors: tensors::read(&golden_dir("losses", "batch").join("io.safetensors")).unwrap() }
    }

    fn batch(&self) -> Batch {
        Batch {
            tokens: None,
            latents: Tensor::cat(&[&self.tensors["winner"], &self.tensors["loser"]], 0),
            conditioning: Conditioning::text(self.tensors["encoder_hidden_states"].shallow_clone()).twice(),
            keys: (0..N_PAIRS as u64).map(|id| (id, 0)).collect(),
            with_losers: true,
            is_last: true,
            draws: None,
        }
    }

    fn levels(&self) -> Vec<Level> {
        let timesteps = Vec::<i64>::try_from(&self.tensors["timesteps"]).unwrap();
        timesteps.into_iter().map(|t| schedule().level(t as usize)).collect()
    }

    fn noise(&self) -> Tensor {
        self.tensors["noise"].shallow_clone()
    }
}

fn policy() -> Network {
    network("losses", "batch", Role::Trained, DType::F32)
}

/// One step of a method with its recorded settings and draws; gradients are left on the policy.
fn step(name: &str, settings: Value, golden: &Golden, policy: &Network) -> Vec<PairRecord> {
    step_after(0.0, name, settings, golden, policy)
}

/// The same after a step with this mean gain.
fn step_after(
    mean_gain: f64,
    name: &str,
    mut settings: Value,
    golden: &Golden,
    policy: &Network,
) -> Vec<PairRecord> {
    settings["beta"] = json!(golden.note("beta").unwrap().parse::<f64>().unwrap());
    let objective = objective(name, &settings).unwrap();
    let frozen = network("models", "unet-demo", Role::Frozen, DType::F32);
    let reference =
        if objective.needs().reference { Reference::Frozen(&frozen.unet) } else { Reference::None };
    let schedule = schedule();
    let engine = common::engine(&policy.unet, &reference, &objective, &schedule);
    let given = Given::load();
    let batch = given.batch();
    let noise = match engine.draw(&batch).noise {
        Noise::Forward(_) => Noise::Forward(given.noise()),
        inversion => inversion,
    };
    let draws = Draws { levels: given.levels(), noise };
    engine.accumulate_with(&batch, &draws, &StepContext { mean_gain, ..StepContext::of(N_PAIRS) })
}

#[track_caller]
fn assert_metrics(golden: &Golden, side: &str, records: &[PairRecord]) {
    let metric = |name: &str, tolerance: &str, of: &dyn Fn(&PairRecord) -> Option<f64>| {
        if let Some(wanted) = golden.get(&format!("{side}{name}")) {
            let found: Vec<f64> = records.iter().map(|r| of(r).unwrap()).collect();
            // Of a method of single images a metric is recorded for each; a pair's is their mean.
            let wanted = match wanted.size1().unwrap() == 2 * found.len() as i64 {
                true => wanted.reshape([2, -1]).mean_dim(0, false, Kind::Double),
                false => wanted,
            };
            assert_close(
                &Tensor::from_slice(&found),
                &wanted,
                golden.tolerance(tolerance),
                &format!("{side}{name}"),
            );
        }
    };
    metric("policy_error_winner", "output", &|r| Some(r.winner_error));
    metric("policy_error_loser", "output", &|r| r.loser_error);
    metric("reference_error_winner", "output", &|r| Some(r.reference?.0));
    metric("reference_error_loser", "output", &|r| Some(r.reference?.1));
    metric("logit", "loss", &|r| r.outcome.logit);
    metric("losses", "loss", &|r| Some(r.outcome.loss));
    let mean = records.iter().map(|r| r.outcome.loss).sum::<f64>() / records.len() as f64;
    let wanted = golden.tensor(&format!("{side}loss")).to_kind(Kind::Double);
    assert_close(&Tensor::from(mean), &wanted, golden.tolerance("loss"), "mean loss");
}

fn assert_step(name: &str, settings: Value) {
    let (golden, policy) = (Golden::load("losses", name), policy());
    let records = step(name, settings, &golden, &policy);
    assert_metrics(&golden, "", &records);
    assert_gradients(&take_gradients(&policy.trainable), &golden, golden.tolerance("gradient"));
}

#[test]
fn diffusion_dpo_equals_the_recording() {
    assert_step("diffusion-dpo", json!({}));
}

#[test]
fn the_safeguard_equals_the_recording() {
    let (golden, policy) = (Golden::load("losses", "diffusion-dpo-safeguard"), policy());
    let records = step("diffusion-dpo", json!({"safeguard_mu": 0.6}), &golden, &policy);
    assert_metrics(&golden, "", &records);
    assert_gradients(&take_gradients(&policy.trainable), &golden, golden.tolerance("gradient"));
}

#[test]
fn kto_equals_the_recording_with_both_reference_points() {
    let (golden, network) = (Golden::load("losses", "kto"), policy());
    let settings = json!({"lambda_disliked": 0.5});
    let records = step_after(0.002, "kto", settings, &golden, &network);
    assert_metrics(&golden, "", &records);
    assert_gradients(&take_gradients(&network.trainable), &golden, golden.tolerance("gradient"));
    let settings = json!({"lambda_disliked": 0.5, "reference_point": "batch"});
    assert_metrics(&golden, "by_batch.", &step("kto", settings, &golden, &policy()));
}

#[test]
fn kto_on_the_same_images_one_by_one_equals_the_recording() {
    let (golden, network) = (Golden::load("losses", "kto"), policy());
    let beta = golden.note("beta").unwrap().parse::<f64>().unwrap();
    let objective = objective("kto", &json!({"beta": beta, "lambda_disliked": 0.5})).unwrap();
    let frozen = common::frozen_copy();
    let (reference, schedule, given) = (Reference::Frozen(&frozen.unet), schedule(), Given::load());
    let ids = 0..2 * N_PAIRS as u64;
    let label = |id| if id < N_PAIRS as u64 { Label::Liked } else { Label::Disliked };
    let labels: HashMap<u64, Label> = ids.clone().map(|id| (id, label(id))).collect();
    let batch = Batch { keys: ids.map(|id| (id, 0)).collect(), with_losers: false, ..given.batch() };
    let draws = Draws {
        levels: given.levels().repeat(2),
        noise: Noise::Forward(Tensor::cat(&[given.noise(), given.noise()], 0)),
    };
    let engine = common::engine(&network.unet, &reference, &objective, &schedule);
    let engine = Engine { labels: Some(&labels), ..engine };
    let context = StepContext { mean_gain: 0.002, ..StepContext::of(2 * N_PAIRS) };
    let records = engine.accumulate_with(&batch, &draws, &context);
    for (name, tolerance, figure) in [
        ("logit", "loss", &(|r: &PairRecord| r.outcome.logit.unwrap()) as &dyn Fn(&PairRecord) -> f64),
        ("losses", "loss", &|r| r.outcome.loss),
    ] {
        let found: Vec<f64> = records.iter().map(figure).collect();
        assert_close(&Tensor::from_slice(&found), &golden.tensor(name), golden.tolerance(tolerance), name);
    }
    assert_gradients(&take_gradients(&network.trainable), &golden, golden.tolerance("gradient"));
}

#[test]
fn mapo_equals_the_recording() {
    assert_step("mapo", json!({}));
}

#[test]
fn ddim_inpo_equals_the_recording() {
    assert_step("ddim-inpo", json!({"eta": 0.0}));
}

#[test]
fn ddim_inpo_inverts_with_the_reference_if_told_so() {
    let golden = Golden::load("losses", "ddim-inpo");
    let records = step("ddim-inpo", json!({"eta": 0.0, "model": "reference"}), &golden, &policy());
    assert_metrics(&golden, "by_reference.", &records);
}

#[test]
fn inverted_latents_and_their_noise_equal_the_recording() {
    let (golden, given) = (Golden::load("losses", "ddim-inpo"), Given::load());
    let frozen = network("models", "unet-demo", Role::Frozen, DType::F32);
    let policy = policy();
    let batch = given.batch();
    let keys: Vec<NoiseKey> = batch.row_keys(0, Stream::InversionNoise);
    let settings = Inversion { n_steps: 10, eta: 0.0, grid: Grid::Exact };
    for (side, network) in [("", &policy.unet as &dyn Denoiser), ("by_reference.", &frozen.unet)] {
        let rows = batch.per_row(&given.levels());
        let found =
            invert(&schedule(), network, &batch.latents, &batch.conditioning, &rows, &keys, &settings);
        for (name, tensor) in [("inverted", found.noisy), ("implied_noise", found.target)] {
            let half = |half: &str| golden.tensor(&format!("{side}{name}_{half}"));
            let wanted = Tensor::cat(&[half("winner"), half("loser")], 0);
            assert_close(&tensor, &wanted, golden.tolerance("output"), &format!("{side}{name}"));
        }
    }
}
