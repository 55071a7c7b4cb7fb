//! The place of a run: what it writes there, and what it reads.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tastemaker_run::{Adapter, Plan};
use tastemaker_store::json;
use tastemaker_store::lock::Claim;

use crate::place::{OverwriteFlag, Place, PlaceError};

/// What a run writes into its folder, besides what has a name of its plan.
const OURS: &[&str] = &[
    "plan.json",
    "events.jsonl",
    "README.md",
    "best.safetensors",
    "model.safetensors",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights_kohya.safetensors",
    "checkpoint-#/checkpoint.json",
    "checkpoint-#/state.safetensors",
    "checkpoint-#/state-#.safetensors",
    "checkpoint-#/pytorch_lora_weights.safetensors",
    "checkpoint-#/pytorch_lora_weights_kohya.safetensors",
    "images/step-#/prompt-#-#.png",
    "pictures/step-#/prompt-#-#.png",
    "logs/*/events.out.tfevents.*",
    "model/README.md",
    "model/model_index.json",
    "model/*/*.json",
    "model/*/*.safetensors",
    "model/*/*.bin",
    "model/*/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model*.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model*.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
];

/// Folders of a run that are replaced as a whole.
const WHOLES: &[&str] = &["model", "unet", "transformer", "checkpoint-#"];

/// The place of a run.
pub fn of(out: &Path) -> Place<'_> {
    let place = Place::folder(out, "--output_dir", OURS).marked(&["plan.json"]).beside_others(WHOLES);
    let Ok(plan) = json::read::<Value>(out.join("plan.json")) else { return place };
    let named = |pointer: &str| plan.pointer(pointer).and_then(Value::as_str);
    let lora = named("/output/output_name")
        .into_iter()
        .flat_map(|name| ["", "checkpoint-#/"].map(|folder| format!("{folder}{name}.safetensors")));
    let board = named("/logging/logging_dir").zip(named("/logging/tracker_name"));
    let board = board.map(|(folder, run)| {
        // As paths below the folder are walked; another place is none below it.
        let parts = Path::new(folder).join(run);
        let parts: Vec<_> = parts.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        format!("{}/events.out.tfevents.*", parts.join("/").trim_start_matches("./"))
    });
    lora.chain(board).fold(place, Place::with)
}

/// Takes the place of a run, if it may write there. One that has made nothing yet is started again.
///
/// # Errors
/// As [`Place::claim_unless`].
pub fn claim(
    place: &Place<'_>,
    out: &Path,
    resumes: bool,
    overwrite: OverwriteFlag,
) -> Result<Claim, PlaceError> {
    let has_checkpoint = || {
        let entries = out.read_dir().into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with("checkpoint-"))
    };
    // A damaged plan that was removed is written again.
    let is_run = out.join("plan.json").is_file() || resumes && has_checkpoint();
    let has_made = || {
        let entries = out.read_dir().into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name.starts_with("checkpoint-")
                || name.ends_with(".safetensors")
                || ["model", "unet", "transformer"].contains(&&*name)
        })
    };
    if is_run && !resumes && !overwrite.overwrite && has_made() {
        return Err(PlaceError(format!(
            "{} already exists and holds a run; choose another --output_dir, --resume_from_checkpoint latest or --overwrite",
            out.display()
        )));
    }
    // A run that is resumed keeps what is there.
    place.claim_unless(is_run, OverwriteFlag { overwrite: overwrite.overwrite && !resumes })
}

/// What a run reads.
pub fn inputs(plan: &Plan) -> Vec<PathBuf> {
    let (model, data) = (&plan.model, &plan.data);
    let parts = [&model.pretrained_vae_model_name_or_path, &model.unet_init, &model.model_config];
    let names = [&model.pretrained_model_name_or_path, &data.train_data_dir];
    let weights = match &plan.adapter {
        Adapter::Continued { network_weights, .. } => Some(network_weights),
        Adapter::Lora(lora) => lora.network_weights.as_ref(),
        Adapter::Full {} => None,
    };
    let named = names.into_iter().chain(parts.into_iter().flatten()).map(PathBuf::from);
    named.chain(data.exclude.iter().chain(weights).cloned()).collect()
}
