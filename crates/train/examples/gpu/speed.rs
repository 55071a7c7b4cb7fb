//! Time and memory of steps at published size; `benchmarks/gpu/peer.py` measures the same of PyTorch.

use std::time::Instant;

use serde_json::{Value, json};
use tastemaker_math::objectives::objective;
use tastemaker_models::original::{Layout, Preset};
use tastemaker_store::dtype::DType;
use tastemaker_torch::memory;
use tastemaker_train::data::{EncodedPairs, Use};
use tastemaker_train::state::State;
use tch::{Cuda, Device};

use crate::network::{Adapter, Pairing, pairs, small};
use crate::runs::{all, engine, options, plan, schedule, train};
use crate::{Setting, check, measurement};

/// What is measured: one of the published recipes.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    name: &'static str,
    is_sdxl: bool,
    adapter: Adapter,
    n_pairs: usize,
    recompute: bool,
}

const CASES: [Case; 5] = [
    Case { name: "sd15-lora-1", is_sdxl: false, adapter: Adapter::Lora, n_pairs: 1, recompute: false },
    Case { name: "sd15-lora-16", is_sdxl: false, adapter: Adapter::Lora, n_pairs: 16, recompute: false },
    Case { name: "sd15-full", is_sdxl: false, adapter: Adapter::Full, n_pairs: 1, recompute: false },
    Case { name: "sdxl-lora", is_sdxl: true, adapter: Adapter::Lora, n_pairs: 1, recompute: false },
    Case { name: "sdxl-full", is_sdxl: true, adapter: Adapter::Full, n_pairs: 1, recompute: true },
];

/// Timed steps, and those before them.
const N_STEPS: u64 = 10;
const N_WARM_UP: u64 = 3;

pub fn case(name: &str) -> Option<Case> {
    CASES.into_iter().find(|case| case.name == name)
}

pub fn names() -> Vec<&'static str> {
    CASES.iter().map(|case| case.name).collect()
}

pub fn run(setting: &Setting, case: Case) {
    let device = setting.device;
    let (config, side, caption, pooled) = shape(setting.smoke, case);
    let pairs = pairs(case.n_pairs, side, caption, pooled);
    let pairing = Pairing::new(&config, case.adapter, DType::Bf16, device, device);
    pairing.policy.unet.set_recompute(case.recompute);
    let more = format!("train_batch_size = {}\nmixed_precision = \"bf16\"\n", case.n_pairs);
    let mut state = State::new(&pairing.policy.trainable, 0, all(&pairing), &plan(1, &more));
    let (warm_up, n_steps) = if setting.smoke { (1, 2) } else { (N_WARM_UP, N_STEPS) };
    let losses = train(&pairing, &pairs, &plan(warm_up, &more), &mut state, device);
    memory::reset_peak_on(device);
    synchronize(device);
    let began = Instant::now();
    let later = train(&pairing, &pairs, &plan(warm_up + n_steps, &more), &mut state, device);
    synchronize(device);
    let seconds = began.elapsed().as_secs_f64() / n_steps as f64;
    let peak = memory::read_on(device).map(|memory| memory.peak);
    let finite = losses.iter().chain(&later).all(|loss| loss.is_finite());
    check("speed", &format!("{}, losses are numbers", case.name), f64::from(u8::from(!finite)), 0.0);
    let fields = json!({
        "side": "ours", "seconds": seconds, "pairs_per_second": case.n_pairs as f64 / seconds, "peak_bytes": peak,
        "phases": phases(&pairing, &pairs, device), "precision": "bf16",
    });
    measurement("speed", case.name, fields);
}

/// Configuration, side of the latents, and shapes of what the network attends to.
fn shape(smoke: bool, case: Case) -> (Value, i64, (i64, i64), Option<i64>) {
    if smoke {
        return (small(2), 16, (7, 12), None);
    }
    let layout = if case.is_sdxl { Layout::Sdxl } else { Layout::Sd1 };
    let config = Preset::published(layout).config("unet").clone();
    if case.is_sdxl { (config, 128, (77, 2048), Some(1280)) } else { (config, 64, (77, 768), None) }
}

/// Seconds of the reference's forward pass, and of all that comes before the optimizer.
fn phases(pairing: &Pairing, pairs: &EncodedPairs, device: Device) -> Value {
    let (reference, schedule) = (pairing.reference(), schedule());
    let objective = objective("diffusion-dpo", &json!({})).expect("it has defaults");
    let engine = engine(pairing, &reference, &objective, &schedule);
    let uses: Vec<Use> =
        (0..pairs.pairs.len()).map(|index| Use { index, draw: 0, drop_caption: false }).collect();
    let batch = pairs.batch_of(&uses, &options(device));
    let timed = |work: &dyn Fn()| {
        work();
        synchronize(device);
        let began = Instant::now();
        work();
        synchronize(device);
        began.elapsed().as_secs_f64()
    };
    json!({
        "reference_forward": timed(&|| drop(engine.precompute(&batch))),
        "forward_and_backward": timed(&|| drop(engine.accumulate(&batch, uses.len()))),
    })
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
