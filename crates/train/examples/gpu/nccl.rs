//! NCCL with a world of one: the library of the process is found, its communicator begins, streams and hooks run, and the sum of
//! one rank's gradients is what they were.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use tastemaker_torch::distributed::{Group, Settings};
use tastemaker_torch::nccl::{Gradients, Leaves, Library};
use tch::{Device, Kind, Tensor};

use crate::{Setting, check, measurement};

const SECTION: &str = "nccl";

/// Sums gradients over one rank, in one message and in several during the backward pass, whole and sharded.
pub fn run(setting: &Setting) {
    if setting.device == Device::Cpu {
        return measurement(SECTION, "skipped: NCCL is for CUDA devices", json!({}));
    }
    let library = match Library::of_process() {
        Ok(library) => library,
        Err(why) => return check(SECTION, &why, f64::NAN, 0.0),
    };
    let group = Group::join(&alone()).expect("a world of one meets");
    let side = if setting.smoke { 64 } else { 2048 };
    for (name, owners, most) in [
        ("one message", false, usize::MAX),
        ("messages during the backward pass", false, 1),
        ("reduce-scatter and all-gather", true, side * side / 2),
    ] {
        let leaves: Vec<Tensor> = (0..4).map(|_| leaf(side as i64, setting.device)).collect();
        let handles = || leaves.iter().map(Tensor::shallow_clone).collect();
        let owners = owners.then(|| vec![0; leaves.len()]);
        let given = Leaves { tensors: handles(), owners, most: Some(most) };
        let gradients = match Gradients::begin(&library, &group, setting.device, given) {
            Ok(gradients) => gradients,
            Err(error) => return check(SECTION, &format!("{name}: {error}"), f64::NAN, 0.0),
        };
        let mut worst: f64 = 0.0;
        let began = Instant::now();
        for step in 0..3 {
            let wanted = backward(&leaves, step, || ());
            backward(&leaves, step, || gradients.next_is_last());
            let summed = gradients.sum();
            let shared = summed.and_then(|()| gradients.gather_parameters());
            if let Err(error) = shared {
                return check(SECTION, &format!("{name}: {error}"), f64::NAN, 0.0);
            }
            for (leaf, wanted) in leaves.iter().zip(&wanted) {
                worst = worst.max((leaf.grad() - wanted).abs().max().double_value(&[]));
            }
        }
        check(SECTION, name, worst, 0.0);
        measurement(SECTION, name, json!({"seconds": began.elapsed().as_secs_f64()}));
        let left = gradients.leave().map_or(f64::NAN, |()| 0.0);
        check(SECTION, &format!("{name}: leaving"), left, 0.0);
    }
}

fn alone() -> Settings {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Settings {
        name: "nccl".to_owned(),
        rank: 0,
        world_size: 1,
        master_addr: "127.0.0.1".to_owned(),
        master_port: port.expect("a free port").port(),
        store_is_hosted: false,
        interface: Some("lo".to_owned()),
        timeout: Duration::from_secs(20),
        silence: Duration::from_secs(60),
        signal: Default::default(),
    }
}

fn leaf(side: i64, device: Device) -> Tensor {
    let numbers = (Tensor::arange(side * side, (Kind::Float, device)) * 12.9898).sin() / side as f64;
    numbers.reshape([side, side]).set_requires_grad(true)
}

/// Gradients of one backward pass, as they are before they are summed if nothing leaves early.
fn backward(leaves: &[Tensor], step: usize, before: impl FnOnce()) -> Vec<Tensor> {
    for leaf in leaves {
        leaf.shallow_clone().zero_grad();
    }
    before();
    let input = leaves[0].detach() + step as f64;
    let output = leaves.iter().fold(input, |input, leaf| input.matmul(leaf).tanh());
    output.square().sum(Kind::Float).backward();
    leaves.iter().map(|leaf| leaf.grad().copy()).collect()
}
