//! Samplers on recorded networks (`golden/sampler`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod ddim;
mod flow;
mod solvers;

use serde_json::json;
use tastemaker_diffusion::Conditioning;
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::pipeline::SchedulerConfig;
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::Golden;
use tch::Device;

fn network(golden: &Golden) -> UNet {
    let weights = Weights::from_source(golden.weights(), Role::Frozen, DType::F32, Device::Cpu);
    let config = UNetConfig::from_json(&golden.config_json()).unwrap();
    let network = UNet::new(weights.root(), config, DType::F32);
    weights.finish().unwrap();
    network
}

fn conditioning(golden: &Golden, side: &str) -> Conditioning {
    let part = |name: &str| golden.get(&format!("{side}{name}"));
    let text = Conditioning::text(golden.tensor(&format!("{side}encoder_hidden_states")));
    Conditioning { pooled: part("text_embeds"), time_ids: part("time_ids"), ..text }
}

fn number(golden: &Golden, key: &str) -> f64 {
    golden.note(key).unwrap().parse().unwrap()
}

fn scheduler(golden: &Golden) -> SchedulerConfig {
    let mut config = golden.json("scheduler_config.json");
    if config["_class_name"] == "DDIMInverseScheduler" {
        config["_class_name"] = json!("DDIMScheduler"); // the same levels
    }
    SchedulerConfig::from_json(&config).unwrap()
}
