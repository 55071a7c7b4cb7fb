//! Time and memory of steps at published size; `benchmarks/gpu/peer.py` measures the same of PyTorch.

use std::time::Instant;

use serde_json::{Value, json};
use tastemaker_math::objectives::objective;
use tastemaker_models::original::{Layout, Preset};
use tastemaker_store::dtype::DType;
use tastemaker_torch::driver::Driver;
use tastemaker_torch::memory;
use tastemaker_train::data::{EncodedPairs, Use};
use tastemaker_train::optimizer::clip_factor;
use tastemaker_train::state::State;
use tch::{Cuda, Device};

use crate::network::{Adapter, Pairing, pairs, small};
use crate::runs::{all, engine, options, plan_with as plan, schedule, train};
use crate::{Setting, check, measurement};

/// What is measured: one of the published recipes.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    name: &'static str,
    is_sdxl: bool,
    adapter: Adapter,
    n_pairs: usize,
    recompute: bool,
    optimizer: &'static str,
}

/// What the other cases differ from.
const SD15: Case = Case {
    name: "sd15-lora-1",
    is_sdxl: false,
    adapter: Adapter::Lora,
    n_pairs: 1,
    recompute: false,
    optimizer: "adamw",
};

const CASES: [Case; 6] = [
    SD15,
    Case { name: "sd15-lora-16", n_pairs: 16, ..SD15 },
    Case { name: "sd15-full", adapter: Adapter::Full, ..SD15 },
    Case { name: "sd15-full-8bit", adapter: Adapter::Full, optimizer: "adamw8bit", ..SD15 },
    Case { name: "sdxl-lora", is_sdxl: true, ..SD15 },
    Case { name: "sdxl-full", is_sdxl: true, adapter: Adapter::Full, recompute: true, ..SD15 },
];

/// Products of bfloat16 per second, dense, that a device is sold with.
///
/// Source: NVIDIA's data sheets of these devices.
const SOLD_WITH: [(&str, f64); 7] = [
    ("H200", 989.4e12),
    ("H100 80GB HBM3", 989.4e12),
    ("H100 PCIe", 756.0e12),
    ("A100", 312.0e12),
    ("L40S", 362.0e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71.0e12),
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
    let mut state = State::new(&pairing.policy.trainable, 0, all(&pairing), &plan(1, &more, case.optimizer));
    let (warm_up, n_steps) = if setting.smoke { (1, 2) } else { (N_WARM_UP, N_STEPS) };
    let losses = train(&pairing, &pairs, &plan(warm_up, &more, case.optimizer), &mut state, device);
    memory::reset_peak_on(device);
    synchronize(device);
    let began = Instant::now();
    let later = train(&pairing, &pairs, &plan(warm_up + n_steps, &more, case.optimizer), &mut state, device);
    synchronize(device);
    let seconds = began.elapsed().as_secs_f64() / n_steps as f64;
    let held = memory::read_on(device);
    let (peak, reserved) = (held.map(|held| held.peak), held.and_then(|held| held.peak_reserved));
    let finite = losses.iter().chain(&later).all(|loss| loss.is_finite());
    check("speed", &format!("{}, losses are numbers", case.name), f64::from(u8::from(!finite)), 0.0);
    let flops = case.flops() / seconds;
    let most = Driver::open().ok().and_then(|driver| driver.gpus().ok()).and_then(|gpus| {
        let name = &gpus.first()?.name;
        SOLD_WITH.iter().find(|(known, _)| name.contains(known)).map(|(_, most)| *most)
    });
    let real = !setting.smoke;
    let fields = json!({
        "side": "ours", "seconds": seconds, "pairs_per_second": case.n_pairs as f64 / seconds, "peak_bytes": peak,
        "reserved_bytes": reserved,
        "phases": phases(&pairing, &pairs, &mut state, device), "precision": "bf16", "optimizer": case.optimizer,
        "flops_per_second": real.then_some(flops),
        "utilization": most.filter(|_| real && device != Device::Cpu).map(|most| flops / most),
    });
    measurement("speed", case.name, fields);
}

impl Case {
    /// Operations of a step, a product and its sum as two: forward passes of policy and reference over both images, again where
    /// activations are computed again, and backward through activations, of all weights' products where they are trained.
    ///
    /// Source: `torch.utils.flop_counter` over diffusers' networks of these configurations at 512 and 1024 pixels.
    fn flops(&self) -> f64 {
        let (forward, attention) =
            if self.is_sdxl { (6.761_236e12, 0.783_915e12) } else { (0.803_273e12, 0.126_052e12) };
        let products = forward - attention;
        let backward = match self.adapter {
            Adapter::Lora => products + 2.0 * attention,
            Adapter::Full => 2.0 * forward,
        };
        let again = if self.recompute { forward } else { 0.0 };
        2.0 * self.n_pairs as f64 * (2.0 * forward + again + backward)
    }
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

/// Seconds of the reference's forward pass, of all that comes before the optimizer, and of the optimizer.
fn phases(pairing: &Pairing, pairs: &EncodedPairs, state: &mut State, device: Device) -> Value {
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
    let reference_forward = timed(&|| drop(engine.precompute(&batch)));
    let forward_and_backward = timed(&|| drop(engine.accumulate(&batch, uses.len())));
    synchronize(device);
    let began = Instant::now();
    let norm = state.optimizer.gradient_norm();
    state.optimizer.step(1e-6, clip_factor(norm, 1.0));
    synchronize(device);
    json!({
        "reference_forward": reference_forward, "forward_and_backward": forward_and_backward,
        "optimizer": began.elapsed().as_secs_f64(),
    })
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
