//! The number of threads changes the order of sums and nothing else. A file of its own: the number is the process's.

mod common;

use common::{Pairing, batch, distance, engine, pairs, schedule, take_gradients, uses};
use serde_json::json;
use tastemaker_math::objectives::objective;
use tastemaker_store::dtype::DType;

/// f32 sums cut in two differ in the last digits: errors by 1e-5 at most, gradients at the start by 1e-5 of their length;
/// logits there are exactly 0 either way. With the same number of threads, results are the same bit for bit
/// (`equal_runs_end_in_equal_weights`).
#[test]
fn threads_change_no_more_than_the_order_of_sums() {
    let (pairs, schedule, pairing) = (pairs(), schedule(), Pairing::full(DType::F32));
    let reference = pairing.reference();
    let short = json!({"steps": 2});
    let methods =
        [("diffusion-dpo", json!({})), ("ddim-inpo", short), ("mapo", json!({})), ("sft", json!({}))];
    for (name, settings) in methods {
        let objective = objective(name, &settings).unwrap();
        let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
        let step = |n_threads: i32| {
            tch::set_num_threads(n_threads);
            assert_eq!(tch::get_num_threads(), n_threads);
            let records = engine.accumulate(&batch(&pairs, &uses(&[0, 1], 0), &objective), 2);
            (records, take_gradients(&pairing.policy.trainable))
        };
        let ((one, wanted), (two, found)) = (step(1), step(2));
        for (a, b) in one.iter().zip(&two) {
            assert_eq!((a.id, a.timestep), (b.id, b.timestep));
            assert!((a.winner_error / b.winner_error - 1.0).abs() < 1e-5, "{name}: {a:?} {b:?}");
            if objective.needs().reference {
                assert_eq!((a.outcome.logit, b.outcome.logit), (Some(0.0), Some(0.0)), "{name}");
            }
        }
        let apart = distance(&found, &wanted);
        assert!(apart < 1e-5, "{name}: gradients are {apart:e} apart");
    }
}
