//! `tastemaker model verify`: what this program computes beside what another one recorded.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tastemaker_models::ModelError;
use tastemaker_models::verify::{PROMPTS, verify};
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors;
use tastemaker_weights::safetensors::Header;

use crate::commands::parts::PartFlags;
use crate::models::{find_lora, on_noise_of, read_lora};

/// Recomputes results that another program recorded, from the same inputs, and prints the largest relative error of each.
/// docs/guide/models.md lists the names in a reference file.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A diffusers folder, a single-file checkpoint, or the name of a fetched model.
    model: String,
    /// A safetensors file with inputs and recorded results.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// LoRA for the UNet: its file, a folder with one, or the name of a fetched one [default: none].
    #[arg(long, value_name = "FILE|DIR|ORG/NAME")]
    lora: Option<String>,
    /// Largest accepted relative error.
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    #[command(flatten)]
    parts: PartFlags,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> Result<()> {
    let lora = args.lora.as_deref().map(find_lora).transpose()?;
    let folder = on_noise_of(args.parts.open(&args.model)?, lora.as_deref())?;
    let path = &args.reference;
    let header = Header::read(path)?;
    let prompts: Vec<String> = match header.metadata.get(PROMPTS) {
        Some(text) => serde_json::from_str(text).map_err(|_| {
            StoreError::malformed(path, format!("`{PROMPTS}` {text}"), "a JSON list of texts")
        })?,
        None => Vec::new(),
    };
    let reference = tensors::read_weights(path).context("reading the reference")?;
    let lora = lora.map(|lora| read_lora(lora, &folder)).transpose()?;
    let found = verify(&folder, path, &reference, &prompts, lora, DType::F32)?;
    if found.is_empty() {
        let wanted = "inputs and results under the names in docs/guide/models.md";
        return Err(StoreError::malformed(path, "nothing that can be computed", wanted).into());
    }
    for agreement in &found {
        println!("{:<22} {:.1e}", agreement.what, agreement.error);
    }
    let differs: Vec<&str> = found
        .iter()
        .filter(|agreement| agreement.error.is_nan() || agreement.error > args.tolerance)
        .map(|agreement| agreement.what.as_str())
        .collect();
    if differs.is_empty() {
        return Ok(());
    }
    Err(ModelError::Differs { path: path.clone(), what: differs.join(", "), tolerance: args.tolerance }
        .into())
}
