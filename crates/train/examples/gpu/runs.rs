//! Training steps: logits of 0 before the first, the same losses as on the CPU, the same after a resume.

use std::path::Path;

use tastemaker_math::objectives::objective;
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};
use tastemaker_models::nn::Trainable;
use tastemaker_run::{Event, Plan, Recipe, resolve};
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_train::data::{Augmentation, BatchOptions, EncodedPairs, Order, Use, feed};
use tastemaker_train::distributed::GradientExchange;
use tastemaker_train::draws::{Disturbance, Timesteps};
use tastemaker_train::reference::Reference;
use tastemaker_train::state::State;
use tastemaker_train::step::Engine;
use tastemaker_train::train_loop::TrainLoop;
use tch::{Device, Tensor};

use crate::network::{Adapter, Pairing, pairs, small};
use crate::{Setting, check, worse};

/// Tokens and width of captions of [`small`].
const CAPTION: (i64, i64) = (7, 12);

/// Before the first step the policy is its reference: every logit is 0 to the last bit.
pub fn logits(setting: &Setting) {
    let pairs = pairs(4, 16, CAPTION, None);
    for (precision, name) in [(DType::F32, "f32"), (DType::Bf16, "bf16"), (DType::F16, "fp16")] {
        for adapter in [Adapter::Lora, Adapter::Full] {
            // Heads of 64, 32, 16 and 8: other kernels serve other widths.
            for n_heads in [1, 2, 4, 8] {
                let pairing = Pairing::new(&small(n_heads), adapter, precision, setting.device, Device::Cpu);
                let (reference, schedule) = (pairing.reference(), schedule());
                let objective = objective("diffusion-dpo", &serde_json::json!({})).expect("it has defaults");
                let engine = engine(&pairing, &reference, &objective, &schedule);
                let uses: Vec<Use> =
                    (0..4).map(|index| Use { index, draw: 0, drop_caption: false }).collect();
                let records = engine.accumulate(&pairs.batch_of(&uses, &options(setting.device)), uses.len());
                let largest =
                    records.iter().filter_map(|record| record.outcome.logit).map(f64::abs).fold(0.0, worse);
                check("logits", &format!("{name} {adapter:?} head {}", 64 / n_heads), largest, 0.0);
            }
        }
    }
}

/// Twenty steps on the device make the losses of the CPU.
pub fn steps(setting: &Setting) {
    let pairs = pairs(6, 16, CAPTION, None);
    for adapter in [Adapter::Lora, Adapter::Full] {
        let plan = plan(20, "train_batch_size = 2\n");
        let losses = |device| {
            let pairing = Pairing::new(&small(2), adapter, DType::F32, device, Device::Cpu);
            let mut state = State::new(&pairing.policy.trainable, 0, all(&pairing), &plan);
            train(&pairing, &pairs, &plan, &mut state, device)
        };
        let (found, wanted) = (losses(setting.device), losses(Device::Cpu));
        check("steps", &format!("{adapter:?}, steps made"), (wanted.len() as f64 - 20.0).abs(), 0.0);
        let apart = found.iter().zip(&wanted).map(|(found, wanted)| (found - wanted).abs() / wanted.abs());
        check("steps", &format!("{adapter:?}, losses"), apart.fold(0.0, worse), 1e-3);
    }
}

/// Four steps at once, and two, a file, and two.
pub fn resume(setting: &Setting) {
    let pairs = pairs(6, 16, CAPTION, None);
    let file = std::env::temp_dir().join(format!("tastemaker-gpu-{}.safetensors", std::process::id()));
    for adapter in [Adapter::Lora, Adapter::Full] {
        let fresh = || Pairing::new(&small(2), adapter, DType::F32, setting.device, Device::Cpu);
        let run = |pairing: &Pairing, n_steps, from: Option<&Path>| {
            let plan = plan(n_steps, "train_batch_size = 2\n");
            let mut state = State::new(&pairing.policy.trainable, 0, all(pairing), &plan);
            if let Some(file) = from {
                let saved = tensors::read(file).expect("it was just written");
                put(&pairing.policy.trainable, &saved);
                state
                    .restore(&pairing.policy.trainable, &|name| saved.get(name).map(Tensor::shallow_clone))
                    .expect("it is the state of this network");
            }
            train(pairing, &pairs, &plan, &mut state, setting.device);
            state
        };
        let whole = fresh();
        run(&whole, 4, None);
        let first = fresh();
        let state = run(&first, 2, None);
        let mut saved = state.tensors(&first.policy.trainable);
        saved.extend(first.policy.trainable.iter().map(|p| (key(p), p.tensor.detach())));
        let saved: Named =
            saved.into_iter().map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        tensors::write(&file, &saved, &Default::default()).expect("the temporary folder can be written");
        let second = fresh();
        run(&second, 4, Some(&file));
        let masters = whole.policy.trainable.iter().zip(&second.policy.trainable);
        let apart = masters
            .map(|(whole, second)| {
                ((&whole.tensor - &second.tensor).norm() / whole.tensor.norm()).double_value(&[])
            })
            .fold(0.0, worse);
        // Some kernels of CUDA add up in no fixed order.
        let limit = if setting.device == Device::Cpu { 0.0 } else { 1e-5 };
        check("resume", &format!("{adapter:?}"), apart, limit);
    }
    let _ = std::fs::remove_file(file);
}

fn key(parameter: &Trainable) -> String {
    format!("master.{}", parameter.name)
}

fn put(trainable: &[Trainable], saved: &Named) {
    tch::no_grad(|| trainable.iter().for_each(|p| p.tensor.shallow_clone().copy_(&saved[&key(p)])));
}

/// This process keeps the optimizer's state of every parameter.
pub fn all(pairing: &Pairing) -> Vec<bool> {
    vec![true; pairing.policy.trainable.len()]
}

/// Runs the steps that `state` has not made, and returns the loss of each.
pub fn train(
    pairing: &Pairing,
    pairs: &EncodedPairs,
    plan: &Plan,
    state: &mut State,
    device: Device,
) -> Vec<f64> {
    let (reference, schedule) = (pairing.reference(), schedule());
    let objective = plan.method.objective().expect("it has defaults");
    let order = Order::new(plan, (0..pairs.pairs.len()).collect(), vec![], objective.needs().loser);
    let from = state.step..plan.train.max_train_steps;
    let task = TrainLoop {
        plan,
        engine: engine(pairing, &reference, &objective, &schedule),
        trainable: &pairing.policy.trainable,
        order: &order,
        held_out: &[],
        precomputed: None,
        exchange: GradientExchange::default(),
    };
    let mut losses = Vec::new();
    let mut batches = feed(pairs, order.clone().over(from), options(device));
    task.run(state, &mut batches, &mut |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.loss);
        }
        Ok(())
    })
    .expect("steps are made");
    losses
}

pub fn engine<'a>(
    pairing: &'a Pairing,
    reference: &'a Reference<'a>,
    objective: &'a tastemaker_math::objectives::Objective,
    schedule: &'a NoiseSchedule,
) -> Engine<'a> {
    Engine {
        policy: &pairing.policy.unet,
        reference,
        text: None,
        objective,
        soft_labels: None,
        labels: None,
        schedule,
        timesteps: Timesteps::All,
        seed: 11,
        disturbance: Disturbance::default(),
    }
}

/// Stable Diffusion's noise levels.
pub fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::Epsilon)
        .expect("published levels")
}

pub fn options(device: Device) -> BatchOptions {
    BatchOptions { augmentation: Augmentation { seed: 11, joint: false }, with_losers: true, device }
}

/// Diffusion-DPO for so many steps; `more` is TOML for `[train]`.
pub fn plan(n_steps: u64, more: &str) -> Plan {
    plan_with(n_steps, more, "adamw")
}

/// [`plan`] with another optimizer.
pub fn plan_with(n_steps: u64, more: &str, optimizer: &str) -> Plan {
    let text = format!(
        "output_dir = \"out\"\n[model]\npretrained_model_name_or_path = \"model\"\n[data]\ntrain_data_dir = \"pairs\"\n\
         [method]\nname = \"diffusion-dpo\"\n[optimizer]\nlearning_rate = 1e-4\noptimizer_type = \"{optimizer}\"\n\
         [train]\nseed = 11\nmax_train_steps = {n_steps}\n{more}"
    );
    resolve(Recipe::parse(Path::new("gpu.toml"), &text).expect("it is TOML"), Recipe::default())
        .expect("it is complete")
}
