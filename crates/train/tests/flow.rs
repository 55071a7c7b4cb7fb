//! Training steps on a flow: where levels come from, what the network is given, and inversion; and the anchor, on any path.

mod common;

use std::cell::RefCell;

use common::{batch, engine, pairs, schedule, uses};
use serde_json::json;
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::flow::Density;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::objective;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_train::draws::{Noise, Timesteps};
use tastemaker_train::reference::Reference;
use tastemaker_train::step::Engine;
use tch::{Kind, Tensor};

/// The velocity field `w x`, which remembers what it was asked.
struct Linear {
    w: Tensor,
    asked: RefCell<Vec<(Tensor, Tensor)>>,
}

impl Linear {
    fn new(w: f64, is_trained: bool) -> Self {
        Self { w: Tensor::from(w as f32).set_requires_grad(is_trained), asked: RefCell::default() }
    }
}

impl Denoiser for Linear {
    fn predict(&self, x: &Tensor, timestep: &Tensor, _: &Conditioning) -> Tensor {
        self.asked.borrow_mut().push((x.copy(), timestep.copy()));
        x * &self.w
    }
}

fn number(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).double_value(&[])
}

fn flow() -> NoiseSchedule {
    NoiseSchedule::flow(1000, 3.0).expect("a flow")
}

#[test]
fn a_pair_is_trained_at_its_own_level_and_the_network_asked_at_a_thousand_sigmas() {
    let (pairs, schedule, dpo) = (pairs(), flow(), objective("diffusion-dpo", &json!({})).unwrap());
    let chosen = [Level::flow(0.9545454, 1000), Level::flow(0.3, 1000)];
    for (timesteps, all_levels) in [
        (Timesteps::By(Density::LogitNormal { mean: 0.0, std: 1.0 }), None),
        (Timesteps::By(Density::Sigmoid { scale: 1.0, shift: 3.0 }), None),
        (Timesteps::All, None),
        (Timesteps::Among(&chosen), Some(chosen)),
    ] {
        let (policy, frozen) = (Linear::new(0.7, true), Linear::new(0.7, false));
        let reference = Reference::Frozen(&frozen);
        let engine = Engine { timesteps, ..engine(&policy, &reference, &dpo, &schedule) };
        let batch = batch(&pairs, &uses(&[0, 3, 5], 0), &dpo);
        let draws = engine.draw(&batch);
        let records = engine.accumulate(&batch, 3);
        let Noise::Forward(noise) = draws.noise else { panic!("noise is added") };
        let asked = policy.asked.borrow();
        let (x, timestep) = &asked[0];
        for (i, (record, level)) in records.iter().zip(&draws.levels).enumerate() {
            let sigma = level.sigma();
            assert!(sigma > 0.0 && sigma <= 1.0);
            assert!(all_levels.is_none_or(|all| all.contains(level)), "{timesteps:?}: {level:?}");
            assert_eq!(record.timestep, 1000.0 * sigma, "{timesteps:?}");
            for row in [i as i64, 3 + i as i64] {
                assert_eq!(
                    number(&timestep.get(row)),
                    f64::from((1000.0 * sigma) as f32),
                    "winner and loser alike"
                );
                let (z, e) = (batch.latents.get(row), noise.get(i as i64));
                let mixed = (1.0 - sigma) * &z + sigma * &e;
                assert!(number(&(x.get(row) - mixed).abs().max()) < 1e-6);
                let error = (x.get(row) * 0.7 - (e - z)).square().mean(Kind::Float);
                let found = if row < 3 { record.winner_error } else { record.loser_error.unwrap() };
                assert!((number(&error) - found).abs() < 1e-5 * found, "{timesteps:?}");
            }
            assert_eq!(record.outcome.logit, Some(0.0), "policy and reference agree");
        }
    }
}

#[test]
fn inverted_latents_of_a_flow_end_at_the_level_of_their_pair() {
    let (pairs, schedule) = (pairs(), flow());
    let inpo = objective("ddim-inpo", &json!({"steps": 8, "eta": 0.0})).unwrap();
    let (policy, frozen) = (Linear::new(0.5, true), Linear::new(0.5, false));
    let reference = Reference::Frozen(&frozen);
    let engine = engine(&policy, &reference, &inpo, &schedule);
    let batch = batch(&pairs, &uses(&[1, 4], 2), &inpo);
    let levels = engine.draw(&batch).levels;
    let records = engine.accumulate(&batch, 2);
    let asked = policy.asked.borrow();
    let (x, _) = asked.last().unwrap();
    for (i, (record, level)) in records.iter().zip(&levels).enumerate() {
        let (sigma, z) = (level.sigma(), batch.latents.get(i as i64));
        // Every Euler step of length h multiplies by 1 + h / 2.
        let n = (8.0 * sigma).ceil();
        let grown = (1.0 + 0.5 * sigma / n).powf(n);
        assert!(number(&(x.get(i as i64) - grown * &z).abs().max()) < 1e-5 * grown);
        // The target is the mean velocity of the way, (x - z) / s.
        let error = (0.5 * grown * &z - (grown - 1.0) / sigma * &z).square().mean(Kind::Float);
        assert!((number(&error) - record.winner_error).abs() < 1e-5 * (1e-3 + record.winner_error));
    }
    let untimely = asked.iter().any(|(_, timestep)| number(&timestep.min()) <= 0.0);
    assert!(!untimely, "no network is asked where there is no noise");
}

#[test]
fn the_gradient_of_an_anchored_step_is_that_of_its_loss() {
    for schedule in [schedule(), flow()] {
        for (name, settings) in [
            ("diffusion-dpo", json!({"beta": 20, "anchor_weight": 3})),
            ("mapo", json!({"anchor_weight": 3})),
            ("sft", json!({"anchor_weight": 3})),
            ("kto", json!({"beta": 20, "reference_point": "zero", "anchor_weight": 3})),
        ] {
            let (pairs, objective) = (pairs(), objective(name, &settings).unwrap());
            let frozen = Linear::new(0.5, false);
            let reference = Reference::Frozen(&frozen);
            let at = |w: f64| {
                let policy = Linear::new(w, true);
                let engine = engine(&policy, &reference, &objective, &schedule);
                let batch = batch(&pairs, &uses(&[0, 1, 2, 3], 0), &objective);
                let records = engine.accumulate(&batch, 4);
                let loss = records.iter().map(|record| record.outcome.loss).sum::<f64>() / 4.0;
                (loss, number(&policy.w.grad()))
            };
            let ((above, _), (below, _), (_, slope)) = (at(0.605), at(0.595), at(0.6));
            let expected = (above - below) / 0.01;
            assert!(
                (slope - expected).abs() < 2e-3 * expected.abs().max(0.1),
                "{name}: {slope}, not {expected}"
            );
            let (anchored, _) = at(0.5);
            let plain = {
                let objective = tastemaker_math::objectives::objective(name, &{
                    let mut settings = settings.clone();
                    settings.as_object_mut().unwrap().remove("anchor_weight");
                    settings
                })
                .unwrap();
                let policy = Linear::new(0.5, true);
                let engine = engine(&policy, &reference, &objective, &schedule);
                let batch = batch(&pairs, &uses(&[0, 1, 2, 3], 0), &objective);
                let records = engine.accumulate(&batch, 4);
                records.iter().map(|record| record.outcome.loss).sum::<f64>() / 4.0
            };
            assert!((anchored - plain).abs() < 1e-9, "{name}: at the reference an anchor costs nothing");
        }
    }
}
