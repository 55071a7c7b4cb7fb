//! A tiny network, a handful of encoded pairs, and plans to train one on the other.

#![expect(dead_code, reason = "each test file uses its own part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Denoiser, Posterior};
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{Label, Objective, objective};
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};
use tastemaker_models::nn::{AdapterSwitch, LoraSpec, Ranks, Role, Trainable, Weights, is_large};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_run::{Event, Plan, Recipe, resolve};
use tastemaker_store::dtype::{BasePrecision, DType};
use tastemaker_testkit_torch::{golden_dir, weights as stored};
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::Named;
use tastemaker_train::TrainError;
use tastemaker_train::data::{
    Augmentation, Batch, BatchOptions, EncodedPair, EncodedPairs, Order, Pairs, Use, feed,
};
use tastemaker_train::distributed::GradientExchange;
use tastemaker_train::draws::{Disturbance, Timesteps};
use tastemaker_train::reference::{PrecomputedKey, PrecomputedReference, Reference};
use tastemaker_train::state::State;
use tastemaker_train::step::Engine;
use tastemaker_train::train_loop::{Ended, TrainLoop};
use tch::{Device, Kind, Tensor};

/// A network and what goes with it.
pub struct Network {
    pub unet: UNet,
    pub trainable: Vec<Trainable>,
    pub all: Named,
    pub switch: AdapterSwitch,
}

/// The network in a folder of `golden`, such as `("models", "unet-demo")`.
pub fn network(area: &str, case: &str, role: Role, precision: DType) -> Network {
    build(stored(area, case), role, precision, None)
}

/// The demo network under a fresh adapter of attention projections and convolutions.
pub fn adapted(precision: DType) -> Network {
    build(stored("models", "unet-demo"), Role::Frozen, precision, Some(fresh()))
}

/// As [`adapted`], with weight decomposition.
pub fn dora(precision: DType) -> Network {
    let lora = LoraSpec { use_dora: true, ..fresh() };
    build(stored("models", "unet-demo"), Role::Frozen, precision, Some(lora))
}

fn fresh() -> LoraSpec {
    let target_modules = ["to_q", "to_k", "to_v", "to_out.0", "conv1"].map(str::to_owned).to_vec();
    LoraSpec {
        ranks: Ranks::uniform(4, 8.0),
        target_modules,
        seed: 3,
        tensors: None,
        anchored: false,
        use_dora: false,
    }
}

/// The demo network under an adapter that has learned already; `anchored` keeps it for the reference.
pub fn learned(precision: DType, anchored: bool) -> Network {
    learned_from(adapted(DType::F32), precision, anchored)
}

/// As [`learned`], with weight decomposition.
pub fn learned_dora(precision: DType, anchored: bool) -> Network {
    learned_from(dora(DType::F32), precision, anchored)
}

fn learned_from(fresh_one: Network, precision: DType, anchored: bool) -> Network {
    let drawn = fresh_one.trainable.iter().enumerate().map(|(index, factor)| {
        let moved = factor.tensor.detach() * 0.9 + normal(500 + index as u64, &factor.tensor.size()) * 0.1;
        (factor.name.clone(), moved)
    });
    let tensors: Named = drawn.collect();
    let use_dora = tensors.keys().any(|name| name.ends_with("magnitude_vector"));
    let lora = LoraSpec { tensors: Some(tensors), anchored, use_dora, ..fresh() };
    build(stored("models", "unet-demo"), Role::Frozen, precision, Some(lora))
}

/// As [`adapted`] or [`dora`], on a base of few bits.
pub fn on_base(base: BasePrecision, use_dora: bool, precision: DType) -> Network {
    let lora = LoraSpec { use_dora, ..fresh() };
    build_on(Some(base), stored("models", "unet-demo"), Role::Frozen, precision, Some(lora))
}

/// The same network, its weights those that the base comes to, as they are.
pub fn on_unpacked_base(base: BasePrecision, use_dora: bool, precision: DType) -> Network {
    let unpacked = stored("models", "unet-demo").into_iter().map(|(name, tensor)| {
        let large = name.strip_suffix(".weight").is_some_and(is_large) && tensor.dim() == 2;
        let tensor = if large { Quantized::pack(&tensor, base).value(Kind::Float) } else { tensor };
        (name, tensor)
    });
    let lora = LoraSpec { use_dora, ..fresh() };
    build(unpacked.collect(), Role::Frozen, precision, Some(lora))
}

fn build(stored: Named, role: Role, precision: DType, lora: Option<LoraSpec>) -> Network {
    build_on(None, stored, role, precision, lora)
}

fn build_on(
    base: Option<BasePrecision>,
    stored: Named,
    role: Role,
    precision: DType,
    lora: Option<LoraSpec>,
) -> Network {
    // Networks this small lose more by waiting for a second thread than they gain.
    tch::set_num_threads(1);
    let config = std::fs::read_to_string(golden_dir("models", "unet-demo").join("config.json")).unwrap();
    let config = UNetConfig::from_json(&serde_json::from_str(&config).unwrap()).unwrap();
    let mut weights = Weights::from_source(stored, role, precision, Device::Cpu).with_base_precision(base);
    if let Some(lora) = lora {
        weights = weights.with_lora(lora);
    }
    let switch = weights.adapter_switch();
    let unet = UNet::new(weights.root(), config, precision);
    let (trainable, all) = weights.finish().unwrap();
    Network { unet, trainable, all, switch }
}

/// The demo network, still.
pub fn frozen_copy() -> Network {
    network("models", "unet-demo", Role::Frozen, DType::F32)
}

/// A policy and the reference it started from.
pub struct Pairing {
    pub policy: Network,
    frozen: Option<Network>,
}

impl Pairing {
    /// Every weight learns; both networks are built from the same tensors in memory.
    pub fn full(precision: DType) -> Self {
        let stored = stored("models", "unet-demo");
        let same = stored.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let policy = build(stored, Role::Trained, precision, None);
        Self { policy, frozen: Some(build(same, Role::Frozen, precision, None)) }
    }

    /// An adapter learns; the reference is the same network without it.
    pub fn adapted(precision: DType) -> Self {
        Self { policy: adapted(precision), frozen: None }
    }

    /// An adapter that has learned already goes on; the reference has it as it was.
    pub fn continued(precision: DType) -> Self {
        Self { policy: learned(precision, true), frozen: None }
    }

    /// As [`Pairing::adapted`] with [`dora`].
    pub fn dora(precision: DType) -> Self {
        Self { policy: dora(precision), frozen: None }
    }

    /// As [`Pairing::adapted`] on a base of few bits.
    pub fn on_base(base: BasePrecision, use_dora: bool, precision: DType) -> Self {
        Self { policy: on_base(base, use_dora, precision), frozen: None }
    }

    /// As [`Pairing::continued`] with [`dora`].
    pub fn continued_dora(precision: DType) -> Self {
        Self { policy: learned_dora(precision, true), frozen: None }
    }

    /// A policy that has moved from its reference.
    pub fn moved() -> Self {
        Self {
            policy: network("losses", "batch", Role::Trained, DType::F32),
            frozen: Some(network("models", "unet-demo", Role::Frozen, DType::F32)),
        }
    }

    pub fn reference(&self) -> Reference<'_> {
        match &self.frozen {
            Some(frozen) => Reference::Frozen(&frozen.unet),
            None => Reference::AdapterOff { policy: &self.policy.unet, switch: self.policy.switch.clone() },
        }
    }

    /// All weights that must not move, by name.
    pub fn frozen_weights(&self) -> Named {
        let trained: Vec<_> = self.policy.trainable.iter().map(|p| p.name.as_str()).collect();
        let all = self.frozen.as_ref().map_or(&self.policy.all, |frozen| &frozen.all);
        let still = all.iter().filter(|(name, _)| self.frozen.is_some() || !trained.contains(&name.as_str()));
        still.map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
    }
}

/// A method with settings of its own.
pub fn method(name: &str) -> Objective {
    objective(name, &json!({})).unwrap()
}

/// Stable Diffusion's noise levels.
pub fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::Epsilon).unwrap()
}

pub fn engine<'a>(
    policy: &'a dyn Denoiser,
    reference: &'a Reference<'a>,
    objective: &'a Objective,
    schedule: &'a NoiseSchedule,
) -> Engine<'a> {
    Engine {
        policy,
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

fn normal(index: u64, shape: &[i64]) -> Tensor {
    let mut values = vec![0f32; shape.iter().product::<i64>() as usize];
    Keyed::new(5, Stream::Data, index, 0).fill_normal(&mut values);
    Tensor::from_slice(&values).reshape(shape)
}

/// Six pairs of eight images under three captions.
pub fn pairs() -> EncodedPairs {
    let images = [8, 4, 8, 8];
    EncodedPairs {
        images: Posterior { mean: normal(0, &images), std: normal(1, &images).abs() * 0.1 },
        hflip: false,
        captions: Conditioning::text(normal(2, &[3, 7, 12])),
        empty: Conditioning::text(normal(3, &[1, 7, 12])),
        pairs: (0..6)
            .map(|i| EncodedPair { id: 100 + i as u64, winner: i, loser: (i + 2) % 8, caption: i % 3 })
            .collect(),
    }
}

/// The pairs `indices` at repetition `draw`, captions kept.
pub fn uses(indices: &[usize], draw: u64) -> Vec<Use> {
    indices.iter().map(|&index| Use { index, draw, drop_caption: false }).collect()
}

pub fn batch(pairs: &EncodedPairs, uses: &[Use], objective: &Objective) -> Batch {
    pairs.batch_of(uses, &options(objective.needs().loser))
}

/// Draws of seed 11, on the CPU.
pub fn options(with_losers: bool) -> BatchOptions {
    BatchOptions { augmentation: Augmentation { seed: 11, joint: false }, with_losers, device: Device::Cpu }
}

/// Gradients by parameter name, and forgets them.
pub fn take_gradients(trainable: &[Trainable]) -> Named {
    let taken = trainable.iter().map(|p| (p.name.clone(), p.tensor.grad().copy())).collect();
    trainable.iter().for_each(|p| p.tensor.shallow_clone().zero_grad());
    taken
}

/// Copies of the masters by name.
pub fn weights(trainable: &[Trainable]) -> Named {
    trainable.iter().map(|p| (p.name.clone(), p.tensor.detach().copy())).collect()
}

/// The distance of two points in the space of all parameters, in units of the second's distance from zero.
pub fn distance(found: &Named, wanted: &Named) -> f64 {
    let square = |tensor: Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
    let apart: f64 = wanted.iter().map(|(name, tensor)| square(&found[name] - tensor)).sum();
    let length: f64 = wanted.values().map(|tensor| square(tensor.shallow_clone())).sum();
    (apart / length).sqrt()
}

#[track_caller]
pub fn assert_identical(found: &Named, wanted: &Named) {
    assert!(found.keys().eq(wanted.keys()), "other names");
    let other: Vec<_> =
        found.iter().filter(|(name, tensor)| !tensor.equal(&wanted[*name])).map(|(name, _)| name).collect();
    assert!(other.is_empty(), "{} of {} tensors differ: {other:?}", other.len(), found.len());
}

/// A plan of a few steps; `more` is TOML that comes after `[train]` and its first keys.
pub fn plan(method: &str, n_steps: u64, more: &str) -> Plan {
    let text = format!(
        "output_dir = \"out\"\n[model]\npretrained_model_name_or_path = \"model\"\n[data]\ntrain_data_dir = \"pairs\"\n\
         proportion_empty_prompts = 0.3\n[method]\nname = \"{method}\"\n[optimizer]\nlearning_rate = 1e-3\n\
         [train]\nseed = 11\nmax_train_steps = {n_steps}\n{more}"
    );
    resolve(Recipe::parse(Path::new("test.toml"), &text).unwrap(), Recipe::default()).unwrap()
}

/// Runs the loop over the pairs at `train`, validating on those at `held_out`.
pub fn train(
    pairing: &Pairing,
    pairs: &EncodedPairs,
    plan: &Plan,
    train: &[usize],
    held_out: &[usize],
) -> (Result<(), TrainError>, Vec<Event>) {
    train_labeled(pairing, (pairs, None), plan, train, held_out, None)
}

/// As [`train`], every label a soft one; with the reference precomputed if there is a place for it.
pub fn train_softly(
    pairing: &Pairing,
    pairs: &EncodedPairs,
    plan: &Plan,
    train: &[usize],
    precomputed: Option<&PrecomputedReference>,
) -> (Result<(), TrainError>, Vec<Event>) {
    let soft_labels = pairs.pairs.iter().map(|pair| (pair.id, 0.55 + 0.01 * (pair.id % 7) as f64)).collect();
    run(pairing, pairs, (None, Some(&soft_labels)), plan, (train, &[]), precomputed)
}

/// As [`train`], on the winners as single images where there are labels, with the reference's errors precomputed if there is a place for them.
pub fn train_labeled(
    pairing: &Pairing,
    (pairs, labels): (&EncodedPairs, Option<&HashMap<u64, Label>>),
    plan: &Plan,
    train: &[usize],
    held_out: &[usize],
    precomputed: Option<&PrecomputedReference>,
) -> (Result<(), TrainError>, Vec<Event>) {
    run(pairing, pairs, (labels, None), plan, (train, held_out), precomputed)
}

/// Labels of single images, and soft labels of pairs.
type Labels<'a> = (Option<&'a HashMap<u64, Label>>, Option<&'a HashMap<u64, f64>>);

fn run(
    pairing: &Pairing,
    pairs: &EncodedPairs,
    (labels, soft_labels): Labels<'_>,
    plan: &Plan,
    (train, held_out): (&[usize], &[usize]),
    precomputed: Option<&PrecomputedReference>,
) -> (Result<(), TrainError>, Vec<Event>) {
    let (reference, schedule) = (pairing.reference(), schedule());
    let objective = plan.method.objective().unwrap();
    let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let engine = Engine { labels, soft_labels, ..engine };
    let order = Order::new(plan, train.to_vec(), held_out.to_vec(), objective.needs().loser);
    let order = if labels.is_some() { order.of_single_images() } else { order };
    let held_out: Vec<u64> = order.held_out.iter().map(|&index| pairs.id(index)).collect();
    let task = TrainLoop {
        plan,
        engine,
        trainable: &pairing.policy.trainable,
        order: &order,
        held_out: &held_out,
        precomputed,
        exchange: GradientExchange::default(),
    };
    if let Some(precomputed) = precomputed {
        for steps in precomputed.missing(order.steps()).unwrap() {
            let part = order.clone().without_validation().over(steps.clone());
            precomputed
                .fill(steps, &task.engine, &mut feed(pairs, part, options(order.with_losers)))
                .unwrap();
        }
    }
    let mut state = State::new(task.trainable, 0, vec![true; task.trainable.len()], plan);
    let mut events = Vec::new();
    let mut batches = feed(pairs, order.clone(), options(order.with_losers));
    let result = task.run(&mut state, &mut batches, &mut |event: &Event| {
        events.push(event.clone());
        Ok(())
    });
    (result.map(|ended| assert_eq!(ended, Ended::Completed)), events)
}

/// The key of a precomputed reference that says nothing but its draws.
pub fn reference_key(draws: Value) -> PrecomputedKey {
    let text = String::new;
    PrecomputedKey {
        format: PrecomputedKey::FORMAT,
        reference: text(),
        text: text(),
        latents: text(),
        schedule: text(),
        positions: text(),
        draws,
    }
}
