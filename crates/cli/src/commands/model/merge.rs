//! `tastemaker model merge`: a LoRA made part of its model.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::pipeline::{ModelFolder, StoredType, save_components};

use super::must_be_new;

/// Adds a LoRA to the weights it adapts and writes the model that comes of it.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// A diffusers folder.
    model: PathBuf,
    /// A LoRA file, as diffusers or as kohya's scripts name it.
    lora: PathBuf,
    /// The folder to write.
    to: PathBuf,
    /// How much of the LoRA: 1 is as trained.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    weight: f64,
    /// Element type of the networks that the LoRA adapts.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

/// Element types of weights.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

/// Runs the command.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let MergeArgs { model, lora, to, weight, dtype } = args;
    must_be_new(to)?;
    let folder = ModelFolder::open(model)?;
    let file = LoraFile::read_for(lora, &folder)?;
    let mut merged = Vec::new();
    for (component, part) in file.parts() {
        let weights = part.merged(&folder.stored(component)?, *weight).map_err(|strangers| {
            let shown = strangers.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let n = strangers.len();
            anyhow::Error::from(tastemaker_store::StoreError::malformed(
                lora,
                format!(
                    "{n} layers that {component} of {} does not have in this size ({shown})",
                    model.display()
                ),
                "an adapter of this model",
            ))
        })?;
        merged.push((component, weights));
    }
    let dtype = match dtype {
        Dtype::F32 => StoredType::F32,
        Dtype::F16 => StoredType::F16,
        Dtype::Bf16 => StoredType::Bf16,
    };
    let merged: Vec<_> = merged.iter().map(|(component, weights)| (*component, weights)).collect();
    save_components(&folder, to, &merged, dtype)?;
    println!("wrote {}", to.display());
    Ok(())
}
