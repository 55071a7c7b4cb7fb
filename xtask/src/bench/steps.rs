//! `cargo xtask bench steps`: training steps at real size, one process a method, measurements as JSON lines.
//!
//! The measurements are those the runs themselves record: seconds between the start and the end of the steps, and the most memory
//! held before and in them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::lines;
use crate::child;

/// What is measured.
#[derive(Args)]
pub struct Options {
    /// A model: a folder or file
    #[arg(long)]
    model: String,
    /// A set of pairs
    #[arg(long)]
    pairs: PathBuf,
    /// Side of the images, in pixels
    #[arg(long, default_value_t = 512)]
    resolution: u32,
    /// no or bf16
    #[arg(long, default_value = "no")]
    mixed_precision: String,
    /// Methods, with commas between
    #[arg(long, value_delimiter = ',', default_value = "diffusion-dpo,mapo,ddim-inpo")]
    methods: Vec<String>,
    /// lora or full
    #[arg(long, default_value = "lora")]
    adapter: String,
    /// Optimizer steps of one pair
    #[arg(long, default_value_t = 1)]
    steps: u32,
    /// Measurements go to the end of this file
    #[arg(long)]
    out: PathBuf,
}

/// Trains by each method and writes one line for each.
///
/// # Errors
/// A run fails, or a file cannot be written.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("tastemaker-bench-{}", std::process::id()));
    let measured = options.methods.iter().try_for_each(|method| {
        let folder = scratch.join(method);
        let measurements = measure(root, options, method, &folder)?;
        println!("{measurements}");
        lines::append(&options.out, &measurements)
    });
    let _ = fs::remove_dir_all(&scratch);
    measured
}

fn measure(root: &Path, options: &Options, method: &str, folder: &Path) -> Result<Value> {
    let mut command = child::program(root)?;
    command.args(["train", "--held_out_fraction", "0", "--no_hflip", "--method", method]);
    command.args(["--pretrained_model_name_or_path", &options.model, "--adapter_type", &options.adapter]);
    command.args(["--mixed_precision", &options.mixed_precision]);
    command.args(["--resolution", &options.resolution.to_string()]);
    command.args(["--max_train_steps", &options.steps.to_string()]);
    command.arg("--train_data_dir").arg(&options.pairs).arg("--output_dir").arg(folder);
    child::run(&mut command)?;

    let log = folder.join("events.jsonl");
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let event = |kind: &str| events.iter().find(|event| event["event"] == kind).cloned().unwrap_or_default();
    let (start, finish) = (event("start"), event("finish"));
    let Some(seconds) = finish["seconds"].as_f64() else {
        bail!("{} says nothing of the end of the run", log.display());
    };
    let model = Path::new(&options.model).file_name().unwrap_or_default().to_string_lossy();
    Ok(json!({
        "model": model, "method": method, "adapter": options.adapter, "resolution": options.resolution,
        "precision": options.mixed_precision, "device": start["device"], "version": start["version"],
        "steps": options.steps, "seconds_per_step": seconds / f64::from(options.steps),
        "peak_bytes_before_training": start["peak_memory_bytes"], "peak_bytes_in_training": finish["peak_memory_bytes"],
        "processor": lines::processor(),
    }))
}
