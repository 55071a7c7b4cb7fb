//! AdamW and clipping against torch.optim (`golden/optimizer`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use tastemaker_testkit_torch::{assert_close, golden_dir};
use tastemaker_train::optimizer::{AdamWSettings, Optimizer, clip_factor};
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-6;

fn vectors(value: &Value) -> Vec<Tensor> {
    let vector =
        |v: &Value| Tensor::from_slice(&v.as_array().unwrap().iter().map(number).collect::<Vec<_>>());
    value.as_array().unwrap().iter().map(vector).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn steps_equal_those_of_torch() {
    let text = std::fs::read_to_string(golden_dir("optimizer", "adamw.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    for (i, case) in cases.as_array().unwrap().iter().enumerate() {
        let setting = |key: &str| number(&case["settings"][key]);
        let settings = AdamWSettings {
            adam_beta1: setting("adam_beta1"),
            adam_beta2: setting("adam_beta2"),
            adam_weight_decay: setting("adam_weight_decay"),
            adam_epsilon: setting("adam_epsilon"),
        };
        let parameters: Vec<Tensor> = vectors(&case["start"])
            .into_iter()
            .map(|start| start.to_kind(Kind::Float).set_requires_grad(true))
            .collect();
        let mut optimizer =
            Optimizer::adamw(parameters.iter().map(Tensor::shallow_clone).collect(), settings);
        for (n, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            for (parameter, gradient) in parameters.iter().zip(vectors(&step["gradients"])) {
                (parameter * gradient.to_kind(Kind::Float)).sum(Kind::Float).backward();
            }
            let norm = optimizer.gradient_norm();
            assert!(
                (norm / number(&step["norm"]) - 1.0).abs() < TOLERANCE,
                "case {i}, step {n}: norm {norm}"
            );
            let scale = case["max_grad_norm"].as_f64().map_or(1.0, |max_norm| clip_factor(norm, max_norm));
            optimizer.step(number(&step["learning_rate"]), scale);
            for (parameter, wanted) in parameters.iter().zip(vectors(&step["parameters"])) {
                assert_close(parameter, &wanted, TOLERANCE, &format!("case {i}, step {n}"));
            }
        }
    }
}
