//! Whole runs of the loop on a tiny network: repeatable, stopped by what is not finite, and leaving alone what must not
//! move.

mod common;

use std::collections::BTreeSet;

use common::{Pairing, assert_identical, batch, method, options, pairs, plan, train, uses, weights};
use tastemaker_data::order::pairs_of_step;
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::nn::Trainable;
use tastemaker_run::{Event, Probe, Step};
use tastemaker_store::dtype::DType;
use tastemaker_train::TrainError;
use tastemaker_train::data::{EncodedPairs, Order, feed};
use tastemaker_train::distributed::GradientExchange;
use tastemaker_train::reference::Reference;
use tastemaker_train::state::State;
use tastemaker_train::train_loop::TrainLoop;
use tch::Tensor;

const METHODS: [&str; 4] = ["diffusion-dpo", "ddim-inpo", "mapo", "sft"];
const BATCHES: &str = "train_batch_size = 2\ngradient_accumulation_steps = 2\n";

fn steps(events: &[Event]) -> Vec<Step> {
    let step = |event: &Event| if let Event::Step(step) = event { Some(step.clone()) } else { None };
    events.iter().filter_map(step).collect()
}

fn probes(events: &[Event]) -> Vec<Probe> {
    let probe = |event: &Event| if let Event::Probe(probe) = event { Some(probe.clone()) } else { None };
    events.iter().filter_map(probe).collect()
}

/// Steps without the one metric that depends on the clock.
fn timeless(events: &[Event]) -> Vec<Step> {
    steps(events).into_iter().map(|step| Step { pairs_per_second: 0.0, ..step }).collect()
}

#[test]
fn equal_runs_end_in_equal_weights() {
    let pairs = pairs();
    for name in METHODS {
        let plan = plan(name, 3, BATCHES);
        let run = || {
            let pairing = Pairing::adapted(DType::F32);
            let (result, events) = train(&pairing, &pairs, &plan, &[0, 1, 2, 3, 4], &[]);
            result.unwrap();
            (weights(&pairing.policy.trainable), timeless(&events))
        };
        let ((found, events), (wanted, same)) = (run(), run());
        assert_identical(&found, &wanted);
        assert_eq!(events, same);
        let start = weights(&Pairing::adapted(DType::F32).policy.trainable);
        assert!(found.iter().any(|(name, tensor)| !tensor.equal(&start[name])), "{name} learns nothing");
    }
}

#[test]
fn a_full_fine_tune_in_bfloat16_is_repeatable_and_keeps_its_masters_in_f32() {
    let (pairs, plan) = (pairs(), plan("diffusion-dpo", 2, BATCHES));
    let run = || {
        let pairing = Pairing::full(DType::Bf16);
        train(&pairing, &pairs, &plan, &[0, 1, 2, 3], &[]).0.unwrap();
        weights(&pairing.policy.trainable)
    };
    let found = run();
    assert!(found.values().all(|tensor| tensor.kind() == tch::Kind::Float));
    assert_identical(&found, &run());
}

#[test]
fn another_seed_is_another_run() {
    let (pairs, first) = (pairs(), plan("sft", 1, ""));
    let mut second = first.clone();
    second.train.seed = 12;
    let loss = |plan| steps(&train(&Pairing::full(DType::F32), &pairs, plan, &[0, 1, 2], &[]).1)[0].loss;
    assert_ne!(loss(&first), loss(&second));
}

#[test]
fn training_moves_what_is_trainable_and_nothing_else() {
    let pairs = pairs();
    for pairing in [Pairing::full(DType::F32), Pairing::adapted(DType::F32)] {
        let objective = method("diffusion-dpo");
        let seen = batch(&pairs, &uses(&[0, 1], 0), &objective);
        let timesteps = Tensor::from_slice(&[600i64; 4]);
        let predicted = |denoiser: &dyn Denoiser| {
            tch::no_grad(|| denoiser.predict(&seen.latents, &timesteps, &seen.conditioning))
        };
        let by_reference = || pairing.reference().with(predicted);
        let (still, answers, start) =
            (pairing.frozen_weights(), by_reference(), weights(&pairing.policy.trainable));
        assert!(answers.equal(&predicted(&pairing.policy.unet)));
        train(&pairing, &pairs, &plan("diffusion-dpo", 2, ""), &[0, 1, 2], &[]).0.unwrap();
        assert_identical(&pairing.frozen_weights(), &still);
        assert!(by_reference().equal(&answers), "the reference answers as before");
        assert!(!predicted(&pairing.policy.unet).equal(&answers), "the policy does not");
        let learned = weights(&pairing.policy.trainable);
        let idle: Vec<_> = learned.iter().filter(|(name, tensor)| tensor.equal(&start[*name])).collect();
        assert!(idle.is_empty(), "{idle:?} did not move");
    }
}

#[test]
fn a_pair_that_is_not_finite_stops_the_run_before_it_moves_anything() {
    const BAD: usize = 1;
    for (name, held_by_winner) in
        [("diffusion-dpo", false), ("ddim-inpo", true), ("mapo", false), ("sft", true)]
    {
        let pairs = pairs();
        let pair = pairs.pairs[BAD];
        let image = if held_by_winner { pair.winner } else { pair.loser };
        let _ = pairs.images.mean.get(image as i64).fill_(f64::INFINITY);
        // The bad pair comes where the second step looks first.
        let clean: Vec<usize> = [0, 2, 4, 5].into_iter().filter(|&i| lacks(&pairs, i, image)).collect();
        let n = clean.len() + 1;
        let place = pairs_of_step(11, n, 1, 1)[0].index;
        let mut order = clean;
        order.insert(place, BAD);

        let pairing = Pairing::adapted(DType::F32);
        let (result, events) = train(&pairing, &pairs, &plan(name, 3, ""), &order, &[]);
        let error = result.unwrap_err();
        assert!(
            matches!(&error, TrainError::NonFinite { step: 1, pairs } if *pairs == [pair.id]),
            "{name}: {error:?}"
        );
        assert!(error.to_string().starts_with("step 1: the loss of pairs [101]"), "{error}");
        assert_eq!(steps(&events).len(), 1);
        let one_step = Pairing::adapted(DType::F32);
        train(&one_step, &pairs, &plan(name, 1, ""), &order, &[]).0.unwrap();
        assert_identical(&weights(&pairing.policy.trainable), &weights(&one_step.policy.trainable));
    }
}

/// Whether the pair at `index` does without an image.
fn lacks(pairs: &EncodedPairs, index: usize, image: usize) -> bool {
    let pair = pairs.pairs[index];
    pair.winner != image && pair.loser != image
}

/// A network with finite answers and a gradient that is not a number.
struct Cusp<'a> {
    network: &'a dyn Denoiser,
    parameter: &'a Trainable,
}

impl Denoiser for Cusp<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let zero = (self.parameter.tensor.sum(tch::Kind::Float) * 0.0).square().sqrt();
        self.network.predict(x, timestep, conditioning) + zero
    }
}

#[test]
fn a_gradient_that_is_not_finite_stops_the_run_and_names_all_pairs_of_the_step() {
    let (pairs, pairing, schedule, objective) =
        (pairs(), Pairing::full(DType::F32), common::schedule(), method("sft"));
    let cusp = Cusp { network: &pairing.policy.unet, parameter: &pairing.policy.trainable[0] };
    let engine = common::engine(&cusp, &Reference::None, &objective, &schedule);
    let trainable = &pairing.policy.trainable;
    let start = weights(trainable);
    let plan = plan("sft", 1, "train_batch_size = 2\n");
    let order = Order::new(&plan, vec![0, 1], vec![], false);
    let task = TrainLoop {
        plan: &plan,
        engine,
        trainable,
        order: &order,
        held_out: &[],
        precomputed: None,
        exchange: GradientExchange::default(),
    };
    let mut state = State::new(trainable, 0, vec![true; trainable.len()], &plan);
    let mut batches = feed(&pairs, order.clone(), options(false));
    let result = task.run(&mut state, &mut batches, &mut |_: &Event| Ok(()));
    let Err(TrainError::NonFinite { step: 0, pairs: named }) = result else { panic!("the run goes on") };
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([100, 101]));
    assert_identical(&weights(trainable), &start);
}

#[test]
fn validation_starts_even_and_comes_at_both_ends() {
    let pairs = pairs();
    let plan = plan("diffusion-dpo", 3, "[validation]\nvalidation_steps = 2\nvalidation_pairs = 2\n");
    let (result, events) = train(&Pairing::adapted(DType::F32), &pairs, &plan, &[0, 1, 2], &[3, 4, 5]);
    result.unwrap();
    let probes = probes(&events);
    assert_eq!(probes.iter().map(|p| (p.step, p.n_pairs)).collect::<Vec<_>>(), [(0, 2), (2, 2), (3, 2)]);
    let first = &probes[0];
    assert_eq!((Some(first.winner_error), first.loser_error), (first.ref_winner, first.ref_loser));
    assert_eq!((first.implicit_accuracy, first.margin), (Some(0.5), Some(0.0)));
    assert!(probes.iter().all(|p| (p.ref_winner, p.ref_loser) == (first.ref_winner, first.ref_loser)));
    assert_ne!(probes[2].winner_error, first.winner_error);
}

#[test]
fn validation_does_not_change_the_run() {
    let pairs = pairs();
    let run = |more: &str| {
        let pairing = Pairing::adapted(DType::F32);
        train(&pairing, &pairs, &plan("diffusion-dpo", 2, more), &[0, 1, 2], &[3, 4]).0.unwrap();
        weights(&pairing.policy.trainable)
    };
    assert_identical(&run("[validation]\nvalidation_steps = 1\n"), &run(""));
}

#[test]
fn without_held_out_pairs_there_is_no_validation() {
    let plan = plan("sft", 1, "[validation]\nvalidation_steps = 1\n");
    let (result, events) = train(&Pairing::full(DType::F32), &pairs(), &plan, &[0, 1], &[]);
    result.unwrap();
    assert!(probes(&events).is_empty());
}

#[test]
fn the_first_step_reports_what_it_started_from() {
    let (pairs, plan) = (pairs(), plan("diffusion-dpo", 1, BATCHES));
    let (result, events) = train(&Pairing::adapted(DType::F32), &pairs, &plan, &[0, 1, 2, 3, 4], &[]);
    result.unwrap();
    let step = &steps(&events)[0];
    assert_eq!((step.loss, step.logit_mean), (std::f64::consts::LN_2, Some(0.0)));
    assert_eq!((step.implicit_accuracy, step.margin), (Some(0.5), Some(0.0)));
    assert_eq!((Some(step.winner_error), step.loser_error), (step.ref_winner, step.ref_loser));
    assert!(step.grad_norm > 0.0 && step.lr == 1e-3);
}
