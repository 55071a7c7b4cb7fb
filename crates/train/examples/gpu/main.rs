//! Our side of `benchmarks/gpu/run.sh`: one section of checks or measurements, as JSON lines.
//!
//! `gpu SECTION [--device DEVICE] [--smoke]`, in the root of a checkout: recorded files are read from `golden/`.

mod checks;
mod goldens;
mod nccl;
mod network;
mod runs;
mod speed;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tastemaker_torch::devices::{self, Wanted};
use tastemaker_torch::driver::Driver;
use tastemaker_torch::kernels::Kernels;
use tastemaker_torch::versions;
use tch::Device;

/// What every section is given.
pub struct Setting {
    /// Where is computed.
    pub device: Device,
    /// Whether sizes are tiny, to see that everything runs.
    pub smoke: bool,
}

static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Prints a check with the number that decides it.
pub fn check(section: &str, name: &str, found: f64, limit: f64) {
    // What is not a number passes no limit.
    let passed = found <= limit;
    if !passed {
        FAILED.fetch_add(1, Ordering::Relaxed);
    }
    println!(
        "{}",
        json!({"section": section, "name": name, "found": found, "limit": limit, "passed": passed})
    );
}

/// The larger number; one that is not a number stays.
pub fn worse(one: f64, other: f64) -> f64 {
    if one.is_nan() || one > other { one } else { other }
}

/// Prints a measurement.
pub fn measurement(section: &str, name: &str, mut fields: Value) {
    fields["section"] = section.into();
    fields["name"] = name.into();
    println!("{fields}");
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let smoke = args.iter().position(|arg| arg == "--smoke").map(|at| args.remove(at)).is_some();
    let wanted = args.iter().position(|arg| arg == "--device").map(|at| {
        args.remove(at);
        args.remove(at)
    });
    let wanted: Wanted =
        wanted.as_deref().unwrap_or("cuda").parse().expect("a device as for --device of the program");
    let section = args.first().cloned().unwrap_or_default();
    let device = match devices::open(wanted, 0) {
        Ok(device) => device,
        Err(error) => {
            check("device", &error.to_string(), f64::NAN, 0.0);
            return ExitCode::FAILURE;
        }
    };
    Kernels::default().allow();
    let setting = Setting { device, smoke };
    match section.as_str() {
        "device" => open(&setting),
        "operators" => checks::run(&setting),
        "goldens" => goldens::run(&setting),
        "logits" => runs::logits(&setting),
        "steps" => runs::steps(&setting),
        "resume" => runs::resume(&setting),
        "nccl" => nccl::run(&setting),
        _ => match section.strip_prefix("speed:").and_then(speed::case) {
            Some(case) => speed::run(&setting, case),
            None => {
                eprintln!(
                    "wanted device, operators, goldens, logits, steps, resume, nccl or speed:CASE, of {:?}",
                    speed::names()
                );
                return ExitCode::from(2);
            }
        },
    }
    if FAILED.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The device computes, and what it is.
fn open(setting: &Setting) {
    let sum =
        tch::Tensor::ones([1000], (tch::Kind::Float, setting.device)).sum(tch::Kind::Float).double_value(&[]);
    check("device", "a sum on the device", (sum - 1000.0).abs(), 0.0);
    let driver = Driver::open().ok();
    let gpus = driver.and_then(|driver| driver.gpus().ok()).unwrap_or_default();
    let gpus: Vec<Value> = gpus
        .iter()
        .map(|gpu| json!({"name": gpu.name, "memory_bytes": gpu.memory, "capability": [gpu.capability.0, gpu.capability.1]}))
        .collect();
    let fields = json!({
        "driver": driver.and_then(|driver| driver.release()), "gpus": gpus, "cudnn": versions::cudnn(), "nccl": versions::nccl(),
        "libtorch": versions::libtorch(), "cuda": versions::cuda_runtime().map(versions::cuda),
    });
    measurement("device", "versions", fields);
}
