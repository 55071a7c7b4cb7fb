//! Implicit-reward accuracy against the validation of training on held-out pairs.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod common;

use common::{Pairing, network, options, pairs, schedule, uses};
use tastemaker_diffusion::Denoiser;
use tastemaker_models::nn::Role;
use tastemaker_run::{Event, Probe};
use tastemaker_store::dtype::DType;
use tastemaker_train::TrainError;
use tastemaker_train::data::{Batch, EncodedPairs, FIRST_DRAW};
use tastemaker_train::draws::Timesteps;
use tastemaker_train::validation::accuracy::accuracy;
use tastemaker_train::validation::{DrawSettings, Measurements, TimestepSpread, measure};

const HELD_OUT: [usize; 5] = [0, 1, 2, 4, 5];

/// Every pair under `n` draws, in batches of two.
fn measured(
    pairs: &EncodedPairs,
    denoiser: &dyn Denoiser,
    spread: TimestepSpread<'_>,
    n: u64,
) -> Measurements {
    let mut batches: Vec<Result<Batch, TrainError>> = Vec::new();
    for draw in 0..n {
        for some in HELD_OUT.chunks(2) {
            batches.push(Ok(pairs.batch_of(&uses(some, FIRST_DRAW + draw), &options(true))));
        }
    }
    let draws = DrawSettings { spread, timesteps: Timesteps::All, seed: 11, text: None };
    measure(denoiser, &schedule(), &draws, &mut batches.into_iter()).unwrap()
}

fn last_probe(events: &[Event]) -> Probe {
    let mut probes = events.iter().rev().filter_map(|event| match event {
        Event::Probe(probe) => Some(probe.clone()),
        _ => None,
    });
    probes.next().unwrap()
}

#[test]
fn a_run_ends_with_the_accuracy_of_its_last_validation() {
    let pairs = pairs();
    let pairing = Pairing::full(DType::F32);
    let plan = common::plan("diffusion-dpo", 8, "[validation]\nvalidation_steps = 4\nvalidation_pairs = 5\n");
    let (result, events) = common::train(&pairing, &pairs, &plan, &[0, 1, 2, 3, 4, 5], &HELD_OUT);
    result.unwrap();
    let probe = last_probe(&events);
    let ids: Vec<u64> = HELD_OUT.iter().map(|&index| pairs.pairs[index].id).collect();
    let before = network("models", "unet-demo", Role::Frozen, DType::F32);
    let of = |denoiser| measured(&pairs, denoiser, TimestepSpread::OverPairs(&ids), 1);
    let found = accuracy(&of(&pairing.policy.unet), Some(&of(&before.unet)), 1000, None).unwrap();
    assert_eq!(probe.n_pairs, found.whole.count.n());
    assert_eq!(probe.implicit_accuracy, Some(found.whole.interval.estimate));
    let margin = probe.margin.unwrap();
    assert!((found.margin - margin).abs() <= 1e-9 + 1e-4 * margin.abs(), "{} {margin}", found.margin);
    assert!(found.whole.count.ties < 5, "the run moved nothing");
}

#[test]
fn draws_of_a_pair_are_spread_over_the_schedule() {
    let pairs = pairs();
    let policy = network("models", "unet-demo", Role::Frozen, DType::F32);
    let found = measured(&pairs, &policy.unet, TimestepSpread::OverDraws(4), 4);
    assert_eq!(found.len(), 20);
    for ((_, draw), errors) in &found {
        assert_eq!((errors.timestep / 250.0) as u64, draw - FIRST_DRAW);
    }
    let whole = accuracy(&found, None, 1000, None).unwrap();
    assert!(whole.by_quarter.iter().all(|quarter| quarter.unwrap().count.n() == 5));
}

#[test]
fn measurements_of_a_pair_do_not_depend_on_the_others() {
    let pairs = pairs();
    let policy = network("models", "unet-demo", Role::Frozen, DType::F32);
    let all = measured(&pairs, &policy.unet, TimestepSpread::OverDraws(2), 2);
    let one = pairs.batch_of(&uses(&[4], FIRST_DRAW + 1), &options(true));
    let draws = DrawSettings {
        spread: TimestepSpread::OverDraws(2),
        timesteps: Timesteps::All,
        seed: 11,
        text: None,
    };
    let alone = measure(&policy.unet, &schedule(), &draws, &mut [Ok(one)].into_iter()).unwrap();
    let (key, one) = alone.into_iter().next().unwrap();
    assert_eq!(one.timestep, all[&key].timestep);
    assert!((one.winner - all[&key].winner).abs() < 1e-5 && (one.loser - all[&key].loser).abs() < 1e-5);
}
