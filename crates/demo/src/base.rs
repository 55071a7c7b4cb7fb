//! The embedded base model, and writing it out as an ordinary diffusers folder.

use std::path::{Path, PathBuf};

use tastemaker_store::{atomic, checksum};

use crate::DemoError;

macro_rules! embedded {
    ($($target:literal <- $source:literal),* $(,)?) => {
        &[$(($target, include_bytes!(concat!("../../../assets/demo/", $source)) as &[u8])),*]
    };
}

/// (Path in the model folder, content).
const FILES: &[(&str, &[u8])] = embedded![
    "model_index.json" <- "model/model_index.json",
    "scheduler/scheduler_config.json" <- "model/scheduler/scheduler_config.json",
    "text_encoder/config.json" <- "model/text_encoder/config.json",
    "text_encoder/model.safetensors" <- "model/text_encoder/model.safetensors",
    "tokenizer/merges.txt" <- "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json" <- "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json" <- "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json" <- "tokenizer/vocab.json",
    "unet/config.json" <- "model/unet/config.json",
    "unet/diffusion_pytorch_model.safetensors" <- "model/unet/diffusion_pytorch_model.safetensors",
    "vae/config.json" <- "model/vae/config.json",
    "vae/diffusion_pytorch_model.safetensors" <- "model/vae/diffusion_pytorch_model.safetensors",
];

/// Writes the model folder.
pub fn unpack(folder: &Path) -> Result<(), DemoError> {
    for (name, content) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            atomic::create_folder(parent)?;
        }
        atomic::write_bytes(&path, content)?;
    }
    Ok(())
}

/// The model folder below a cache, under a name that says what is in it; unpacked if it is not there yet.
///
/// It is there whole or not at all, also where several processes ask at once.
pub fn unpacked(caches: &Path) -> Result<PathBuf, DemoError> {
    let folder = caches.join("demo").join(&fingerprint()[..16]);
    if folder.is_dir() {
        return Ok(folder);
    }
    let staged = caches.join("demo").join(format!(".{}.partial", std::process::id()));
    unpack(&staged)?;
    let moved = std::fs::rename(&staged, &folder);
    if moved.is_err() {
        // Another process may have been first.
        let _ = std::fs::remove_dir_all(&staged);
    }
    if !folder.is_dir() {
        moved.map_err(|error| DemoError::io("unpack the embedded model into", &folder, error))?;
    }
    Ok(folder)
}

/// SHA-256 over all files, in order.
pub fn fingerprint() -> String {
    let all: Vec<u8> = FILES.iter().flat_map(|(_, content)| content.iter().copied()).collect();
    checksum::sha256_bytes(&all)
}
