//! Steps of optimizers against torch.optim (`golden/optimizer`), bitsandbytes (`golden/bitsandbytes`) and plain f64.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{golden, values};
use serde_json::Value;
use tastemaker_torch::error::guard;
use tastemaker_torch::optimizers::{
    AdamWStep, Blockwise, Codes, Moments8bit, adamw_8bit, adamw_8bit_anywhere, fused_adamw, squared_length,
    take_away_gradient, unscale,
};
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

const STEP: AdamWStep = AdamWStep {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    weight_decay: 1e-2,
    epsilon: 1e-8,
    gradient_scale: 1.0,
    number: 1,
};

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

/// AdamW in f64.
struct Plain {
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Plain {
    fn new(parameter: &Tensor) -> Self {
        let parameter = parameter.to_kind(Kind::Double);
        Self { first: parameter.zeros_like(), second: parameter.zeros_like(), parameter }
    }

    fn step(&mut self, gradient: &Tensor, step: &AdamWStep) {
        let AdamWStep { learning_rate, beta1, beta2, weight_decay, epsilon, gradient_scale, number } = *step;
        let gradient = gradient.to_kind(Kind::Double) * gradient_scale;
        self.first = &self.first * beta1 + &gradient * (1.0 - beta1);
        self.second = &self.second * beta2 + gradient.square() * (1.0 - beta2);
        let correction = |beta: f64| 1.0 - beta.powi(number as i32);
        let root = (&self.second / correction(beta2)).sqrt() + epsilon;
        self.parameter = &self.parameter * (1.0 - learning_rate * weight_decay)
            - &self.first / correction(beta1) / root * learning_rate;
    }
}

#[test]
fn fused_steps_equal_those_of_torch() {
    let text = std::fs::read_to_string(golden("optimizer/adamw.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let vectors = |value: &Value| -> Vec<Tensor> {
        let vector =
            |v: &Value| Tensor::from_slice(&v.as_array().unwrap().iter().map(number).collect::<Vec<_>>());
        value.as_array().unwrap().iter().map(|v| vector(v).to_kind(Kind::Float)).collect()
    };
    for case in cases.as_array().unwrap() {
        let mut parameters = vectors(&case["start"]);
        parameters.iter_mut().for_each(|p| *p = p.set_requires_grad(true));
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect::<Vec<_>>();
        let (mut first, mut second) = (zeros(), zeros());
        for (i, recorded) in case["steps"].as_array().unwrap().iter().enumerate() {
            let norm = number(&recorded["norm"]);
            let clip =
                case["max_grad_norm"].as_f64().map_or(1.0, |longest| (longest / (norm + 1e-6)).min(1.0));
            let setting = |key: &str| number(&case["settings"][key]);
            let step = AdamWStep {
                learning_rate: number(&recorded["learning_rate"]),
                beta1: setting("adam_beta1"),
                beta2: setting("adam_beta2"),
                weight_decay: setting("adam_weight_decay"),
                epsilon: setting("adam_epsilon"),
                gradient_scale: clip,
                number: i as i64 + 1,
            };
            let gradients = vectors(&recorded["gradients"]);
            fused_adamw(&mut parameters, &gradients, (&mut first, &mut second), &step);
            for (found, wanted) in parameters.iter().zip(vectors(&recorded["parameters"])) {
                assert!(found.detach().allclose(&wanted, 1e-6, 1e-6, false), "step {i}");
            }
        }
    }
}

#[test]
fn a_gradient_may_lie_otherwise_in_memory_than_its_parameter() {
    let start = values(&[3, 4, 5, 2], 0.0);
    let inside_out = |t: &Tensor| t.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let gradient = values(&[3, 4, 5, 2], 1.0);
    let mut wanted = Plain::new(&start);
    wanted.step(&gradient, &STEP);
    let wanted = wanted.parameter.to_kind(Kind::Float);

    let mut parameter = [inside_out(&start)];
    let (mut first, mut second) = ([parameter[0].zeros_like()], [parameter[0].zeros_like()]);
    fused_adamw(&mut parameter, &[gradient.shallow_clone()], (&mut first, &mut second), &STEP);
    assert!(parameter[0].allclose(&wanted, 1e-6, 1e-6, false));

    let mut parameter = inside_out(&start);
    let mut moments = Moments8bit::zeros(120, Device::Cpu);
    adamw_8bit(&mut parameter, &gradient, &mut moments, &Codes::dynamic(), &STEP);
    assert!(parameter.allclose(&wanted, 1e-6, 1e-6, false));
}

fn recorded() -> Named {
    tensors::read(&golden("bitsandbytes/io.safetensors")).unwrap()
}

#[test]
fn the_codes_are_those_of_bitsandbytes() {
    let (recorded, codes) = (recorded(), Codes::dynamic());
    assert!(codes.signed.equal(&recorded["signed.code"]));
    assert!(codes.unsigned.equal(&recorded["unsigned.code"]));
}

/// The share of codes that differ.
fn share_apart(found: &Tensor, wanted: &Tensor) -> f64 {
    found.not_equal_tensor(wanted).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
}

#[test]
fn blocks_are_quantized_as_by_bitsandbytes() {
    let (recorded, codes) = (recorded(), Codes::dynamic());
    for (name, code) in [("signed", &codes.signed), ("unsigned", &codes.unsigned)] {
        let of = |part: &str| &recorded[&format!("{name}.{part}")];
        let found = Blockwise::nearest(of("values"), code);
        assert!(found.absmax.equal(of("absmax")) && found.codes.equal(of("codes")), "{name}");
        assert!(largest(&((found.values(code) - of("values")) / largest(of("values")))) < 0.01, "{name}");
    }
}

#[test]
fn values_of_every_size_find_the_nearest_code() {
    let codes = Codes::dynamic();
    for (code, signs) in [(&codes.signed, [1.0, -1.0]), (&codes.unsigned, [1.0, 1.0])] {
        for sign in signs {
            let n = 256 * 64;
            let sizes = (values(&[n], 2.0) * 5.0 - 5.0).to_kind(Kind::Double);
            let values = Tensor::pow_scalar(10.0, &sizes).to_kind(Kind::Float) * sign;
            let _ = values.slice(0, 0, n, 256).fill_(1.0); // so that every scale is 1
            let found = Blockwise::nearest(&values, code).values(code).to_kind(Kind::Double);
            let values = values.to_kind(Kind::Double);
            let least = (values.unsqueeze(1) - code.to_kind(Kind::Double)).abs().amin([1i64], false);
            assert!(largest(&((found - values).abs() - least)) < 1e-9);
        }
    }
}

#[test]
fn steps_with_8_bit_moments_equal_those_of_bitsandbytes() {
    let (recorded, codes) = (recorded(), Codes::dynamic());
    let mut moments = Moments8bit::zeros(700, Device::Cpu);
    let mut parameter = recorded["parameter"].copy();
    for i in 0..8 {
        let of = |part: &str| recorded[&format!("{part}.{i}")].copy();
        let step = AdamWStep { gradient_scale: 0.5, number: i + 1, ..STEP };
        adamw_8bit(&mut parameter, &of("gradient"), &mut moments, &codes, &step);
        assert!(parameter.allclose(&of("parameter"), 1e-6, 1e-6, false), "step {i}");
        assert!(moments.first.absmax.allclose(&of("first.absmax"), 1e-6, 0.0, false), "step {i}");
        assert!(moments.second.absmax.allclose(&of("second.absmax"), 1e-6, 0.0, false), "step {i}");
        // The package rounds f32 moments by a coarse table, so the next step starts from its own.
        moments.first = Blockwise { codes: of("first.codes"), absmax: of("first.absmax") };
        moments.second = Blockwise { codes: of("second.codes"), absmax: of("second.absmax") };
        parameter = of("parameter");
    }
}

#[test]
fn each_step_with_8_bit_moments_is_that_of_f64_with_rounded_moments() {
    let (codes, n) = (Codes::dynamic(), 1000);
    let mut parameter = values(&[n], 0.0);
    let mut moments = Moments8bit::zeros(n, Device::Cpu);
    for i in 0..20 {
        let gradient = values(&[n], 3.0 * i as f64) * 10f64.powi(-(i as i32 % 3));
        let step = AdamWStep { gradient_scale: 0.3, number: i + 1, ..STEP };
        let mut wanted = Plain::new(&parameter);
        wanted.first = moments.first.values(&codes.signed).to_kind(Kind::Double);
        wanted.second = moments.second.values(&codes.unsigned).to_kind(Kind::Double);
        wanted.step(&gradient, &step);
        adamw_8bit(&mut parameter, &gradient, &mut moments, &codes, &step);
        // Where the second moment is rounded to zero a step is large; what counts is its relative error.
        let (found, wanted_parameter) = (parameter.to_kind(Kind::Double), &wanted.parameter);
        assert!(found.allclose(wanted_parameter, 1e-5, 1e-6, false), "step {i}");
        let rounded = Blockwise::nearest(&wanted.first.to_kind(Kind::Float), &codes.signed);
        assert!(share_apart(&moments.first.codes, &rounded.codes) < 0.01, "step {i}");
    }
}

#[test]
fn moments_of_8_bits_lead_where_f32_moments_lead() {
    let (codes, n) = (Codes::dynamic(), 2048);
    let target = values(&[n], 5.0);
    let mut narrow = values(&[n], 0.0);
    let mut moments = Moments8bit::zeros(n, Device::Cpu);
    let mut wide = Plain::new(&narrow);
    let start = (&narrow - &target).norm().double_value(&[]);
    for i in 0..300 {
        let noise = |phase: f64| values(&[n], phase + 7.0 * i as f64) * 0.1;
        let step = AdamWStep { weight_decay: 0.0, number: i + 1, ..STEP };
        let gradient = &narrow - &target + noise(1.0);
        adamw_8bit(&mut narrow, &gradient, &mut moments, &codes, &step);
        wide.step(&(wide.parameter.to_kind(Kind::Float) - &target + noise(1.0)), &step);
    }
    let left = |parameter: &Tensor| (parameter - &target).norm().double_value(&[]) / start;
    let (narrow, wide) = (left(&narrow), left(&wide.parameter));
    assert!(wide < 0.03 && narrow < 0.03, "{narrow} of the distance left, {wide} with f64 moments");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads: i32| {
        tch::set_num_threads(threads);
        let mut parameter = values(&[100_003], 0.0);
        let mut moments = Moments8bit::zeros(100_003, Device::Cpu);
        for i in 0..3 {
            let step = AdamWStep { number: i + 1, ..STEP };
            adamw_8bit(&mut parameter, &values(&[100_003], i as f64), &mut moments, &Codes::dynamic(), &step);
        }
        (parameter, moments)
    };
    let ((p, a), (q, b)) = (run(1), run(2));
    assert!(p.equal(&q) && a.first.codes.equal(&b.first.codes) && a.second.absmax.equal(&b.second.absmax));
}

#[test]
fn a_gradient_that_is_not_finite_stays_visible() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut parameter = values(&[300], 0.0);
        let mut moments = Moments8bit::zeros(300, Device::Cpu);
        let gradient = values(&[300], 1.0);
        let _ = gradient.get(3).fill_(bad);
        adamw_8bit(&mut parameter, &gradient, &mut moments, &Codes::dynamic(), &STEP);
        assert!(!parameter.double_value(&[3]).is_finite());
        let block = moments.first.values(&Codes::dynamic().signed).get(3).double_value(&[]);
        assert!(!block.is_finite() && moments.first.absmax.double_value(&[1]).is_finite());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let step = |parameter: &Tensor, n: i64| {
        let mut parameter = parameter.shallow_clone();
        let gradient = values(&[300], 1.0);
        let mut moments = Moments8bit::zeros(n, Device::Cpu);
        guard("a step", "", || adamw_8bit(&mut parameter, &gradient, &mut moments, &Codes::dynamic(), &STEP))
            .unwrap_err()
            .to_string()
    };
    assert!(step(&values(&[300], 0.0), 299).contains("299 codes and 2 blocks for 300 elements"));
    assert!(step(&values(&[299], 0.0), 299).contains("a gradient [300] for a parameter [299]"));
    assert!(step(&values(&[600], 0.0).slice(0, 0, 600, 2), 300).contains("wanted f32 without gaps"));
    assert!(step(&values(&[300], 0.0).to_kind(Kind::Half), 300).contains("wanted f32"));
}

#[test]
fn unscaling_divides_and_finds_what_is_not_finite() {
    let mut gradients = [values(&[5], 0.0) * 1024.0, values(&[2, 3], 1.0) * 1024.0];
    assert!(unscale(&mut gradients, 1024.0));
    assert!(gradients[0].equal(&values(&[5], 0.0)) && gradients[1].equal(&values(&[2, 3], 1.0)));
    for bad in [f64::NAN, f64::NEG_INFINITY] {
        let _ = gradients[1].get(1).fill_(bad);
        assert!(!unscale(&mut gradients, 2.0));
    }
    assert!(unscale(&mut [], 2.0));
}

/// What devices other than the host do: the same operations, one after the other.
#[test]
fn on_any_device_eight_bit_steps_give_the_hosts_codes() {
    tch::manual_seed(8);
    let codes = Codes::dynamic();
    for n in [1, 255, 256, 257, 5000, (1 << 22) + 300] {
        let start = values(&[n], 0.3);
        let [mut here, mut there] = [start.copy(), start.copy()];
        let [mut own, mut other] = [(); 2].map(|()| Moments8bit::zeros(n, Device::Cpu));
        let n_steps = if n > 10_000 { 2 } else { 6 };
        for number in 1..=n_steps {
            let gradient = Tensor::randn([n], (Kind::Float, Device::Cpu)) * 10f64.powi(-(number as i32));
            let step = AdamWStep { number, gradient_scale: 0.3, ..STEP };
            adamw_8bit(&mut here, &gradient, &mut own, &codes, &step);
            adamw_8bit_anywhere(&mut there, &gradient, &mut other, &codes, &step);
            for (own, other) in [(&own.first, &other.first), (&own.second, &other.second)] {
                assert!(
                    own.codes.equal(&other.codes) && own.absmax.equal(&other.absmax),
                    "{n}, step {number}"
                );
            }
            assert!(here.equal(&there), "{n}, step {number}: {}", largest(&(&here - &there)));
        }
    }
}

#[test]
fn the_length_of_gradients_is_summed_in_f64_and_gradients_are_taken_away() {
    let leaves = [values(&[3000, 7], 0.0), values(&[5], 1.0)].map(|leaf| leaf.set_requires_grad(true));
    let wanted: f64 = leaves
        .iter()
        .map(|leaf| {
            (leaf.square() * 0.5).sum(Kind::Float).backward();
            leaf.detach().to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[])
        })
        .sum();
    let gradients = [leaves[0].grad(), leaves[1].grad()];
    let found = squared_length(&gradients).double_value(&[]);
    assert!((found / wanted - 1.0).abs() < 1e-12, "{found} {wanted}");
    leaves.iter().for_each(take_away_gradient);
    assert!(leaves.iter().all(|leaf| !leaf.grad().defined()));
}
