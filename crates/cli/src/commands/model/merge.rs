//! `tastemaker model merge`: a LoRA made part of its model.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_models::ModelError;
use tastemaker_models::pipeline::{Trained, pack, save};
use tastemaker_store::dtype::DType;

use super::{claim, done};
use crate::commands::parts::PartFlags;
use crate::commands::sample::checked_weight;
use crate::models::{find_lora, on_noise_of, read_lora};
use crate::next;
use crate::place::OverwriteFlag;

/// Merges a LoRA into its model and writes the result.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// A diffusers folder, a single-file checkpoint, or the name of a fetched model.
    model: String,
    /// LoRA in diffusers or kohya format: its file, a folder with one, or the name of a fetched one.
    lora: String,
    /// Output: a folder, or a single file if the name ends in .safetensors.
    to: PathBuf,
    /// Weight of the LoRA; 1 is as trained.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    weight: f64,
    /// Precision of the merged networks: fp32, fp16 or bf16.
    #[arg(long, value_name = "TYPE", default_value_t)]
    dtype: DType,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    #[command(flatten)]
    parts: PartFlags,
}

/// Runs the command.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let MergeArgs { model, to, weight, dtype, parts, .. } = args;
    let weight = checked_weight(*weight)?;
    let _claim = claim(to, args.overwrite)?;
    let lora = &find_lora(&args.lora)?;
    let folder = on_noise_of(parts.open(model)?, Some(lora))?;
    let file = read_lora(lora, &folder)?;
    let mut merged = Vec::new();
    for (component, part) in file.parts() {
        let weights = part.merged(&folder.stored(component)?, weight).map_err(|strangers| {
            let shown = strangers.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let n = strangers.len();
            ModelError::from(tastemaker_store::StoreError::malformed(
                lora,
                format!("{n} layers that {component} of {model} does not have in this size ({shown})"),
                "an adapter of this model",
            ))
        })?;
        merged.push((component, weights));
    }
    let merged: Vec<Trained<'_>> = merged
        .iter()
        .map(|(component, parameters)| Trained { component, parameters, dtype: *dtype })
        .collect();
    if to.extension().is_some_and(|extension| extension == "safetensors") {
        pack(&folder, &merged, to, &[("format".to_owned(), "pt".to_owned())].into())?;
    } else {
        save(&folder, &merged, to)?;
    }
    done(to)?;
    println!("wrote {}", to.display());
    next::say(&["tastemaker", "sample", "--model", &next::word(to), "--prompt", "a fox", "--out", "images"]);
    Ok(())
}
