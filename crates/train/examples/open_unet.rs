//! What opening a model's UNet for training adds to the peak of memory, over its size on disk.
//!
//! `cargo run -p tastemaker-train --example open_unet -- MODEL`: bf16, a LoRA of rank 8 on the attention layers.

use std::error::Error;
use std::path::Path;

use tastemaker_models::nn::{LoraSpec, Ranks, Role};
use tastemaker_models::pipeline::Model;
use tastemaker_store::dtype::DType;
use tastemaker_torch::memory;
use tch::Device;

fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_freed();
    let path = std::env::args().nth(1).ok_or("wanted a model's folder")?;
    let model = Model::open(&path)?;
    let files = std::fs::read_dir(Path::new(&path).join("unet"))?;
    let sizes: Result<Vec<u64>, std::io::Error> =
        files.map(|file| Ok::<_, std::io::Error>(file?.metadata()?.len())).collect();
    let on_disk: u64 = sizes?.into_iter().sum();
    let target_modules = ["to_q", "to_k", "to_v", "to_out.0"].map(str::to_owned).to_vec();
    let lora = LoraSpec {
        ranks: Ranks::uniform(8, 8.0),
        target_modules,
        seed: 0,
        tensors: None,
        anchored: false,
        use_dora: false,
    };

    let before = memory::read().ok_or("the system does not tell")?;
    memory::reset_peak();
    let unet = model.unet(Role::Frozen, DType::Bf16, Device::Cpu, Some(lora))?;
    let after = memory::read().ok_or("the system does not tell")?;
    let added = after.peak - before.resident;
    println!(
        "{{\"model\": \"{path}\", \"on_disk\": {on_disk}, \"added_to_peak\": {added}, \"resident\": {}, \"ratio\": {:.3}, \"parameters\": {}}}",
        after.resident - before.resident,
        added as f64 / on_disk as f64,
        unet.parameters.len()
    );
    Ok(())
}
