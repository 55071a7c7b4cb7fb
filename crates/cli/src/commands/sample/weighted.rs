//! A LoRA with the weight it acts at, and names and hashes of what images were generated with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tastemaker_math::number;
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::pipeline::Model;
use tastemaker_store::checksum::{sha256_bytes, sha256_file};

use crate::exit::UsageError;
use crate::models::{find_lora, read_lora};

/// Weights of models up to this size are hashed to name them; hashing larger ones would take as long as generating.
const QUICKLY_HASHED: u64 = 1 << 28;

/// The largest weight that is taken, on either side of 0: at 10 no adapter leaves an image.
const MAX_WEIGHT: f64 = 1000.0;

/// A LoRA as typed: where it lies, and its weight.
pub struct Weighted {
    /// Its file.
    pub path: PathBuf,
    /// What its update is multiplied by.
    pub weight: f64,
}

impl Weighted {
    /// Takes `PLACE`, or `PLACE:WEIGHT` where `weight` is not given beside it.
    ///
    /// # Errors
    /// [`UsageError`] for two weights, or one that is no number; those of [`find_lora`].
    pub fn parse(typed: &str, weight: Option<f64>) -> Result<Self> {
        let typed_weight =
            typed.rsplit_once(':').and_then(|(place, end)| Some((place, end.parse::<f64>().ok()?)));
        let typed_weight = typed_weight.filter(|_| !Path::new(typed).exists());
        let (place, weight) = match (typed_weight, weight) {
            (Some((_, first)), Some(second)) => {
                let twice = format!(
                    "two weights of one LoRA, {} in {typed} and {}: give one",
                    number(first),
                    number(second)
                );
                return Err(UsageError(twice).into());
            }
            (Some((place, weight)), None) => (place, weight),
            (None, weight) => (typed, weight.unwrap_or(1.0)),
        };
        let weight = checked_weight(weight)?;
        Ok(Self { path: find_lora(place)?, weight })
    }

    /// The LoRA of a run, at this weight.
    ///
    /// # Errors
    /// [`UsageError`] for a weight that is no number.
    pub fn of_run(path: PathBuf, weight: Option<f64>) -> Result<Self, UsageError> {
        Ok(Self { path, weight: checked_weight(weight.unwrap_or(1.0))? })
    }

    /// Reads it for a model, at its weight.
    ///
    /// # Errors
    /// Those of [`read_lora`].
    pub fn read(&self, model: &Model) -> Result<LoraFile> {
        let file = read_lora(&self.path, model)?;
        Ok(if self.weight == 1.0 { file } else { file.scaled(self.weight) })
    }

    /// The name people know it by: the file's, or the folder's where the file is called as all are.
    pub fn name(&self) -> String {
        let of_folder =
            self.path.parent().filter(|_| self.path.file_name().is_some_and(|name| name == FILE_NAME));
        name_of(of_folder.unwrap_or(&self.path))
    }

    /// Twelve digits of the SHA-256 of the tensors, the header skipped; of other files, of all.
    ///
    /// Source: `addnet_hash_safetensors` of `AUTOMATIC1111/stable-diffusion-webui:modules/hashes.py`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hash(&self) -> Result<String> {
        let bytes = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let is_safetensors = self.path.extension().is_some_and(|ending| ending == "safetensors");
        let header = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
        let tensors = bytes.get(header.saturating_add(8)..).filter(|_| is_safetensors);
        Ok(sha256_bytes(tensors.unwrap_or(&bytes))[..12].to_owned())
    }
}

/// A weight of a LoRA as typed, within reason.
///
/// # Errors
/// [`UsageError`] for anything else.
pub fn checked_weight(weight: f64) -> Result<f64, UsageError> {
    if weight.abs() <= MAX_WEIGHT {
        return Ok(weight);
    }
    Err(UsageError(format!(
        "the weight of a LoRA is {}; wanted a number from -{MAX_WEIGHT} to {MAX_WEIGHT}",
        number(weight)
    )))
}

/// A model's name: that of its file without ending, or of its folder.
pub fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Ten digits of the SHA-256 of a single file, or of the UNet's weights in a folder; `None` where that would take long. The Hub's
/// cache calls files by their hashes.
pub fn hash_of(model: &Path) -> Option<String> {
    const IN_FOLDER: &str = "unet/diffusion_pytorch_model.safetensors";
    let file = if model.is_dir() { model.join(IN_FOLDER) } else { model.to_owned() };
    let file = file.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?;
    if name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Some(name[..10].to_owned());
    }
    let is_small = fs::metadata(&file).is_ok_and(|about| about.len() <= QUICKLY_HASHED);
    is_small.then(|| sha256_file(&file).ok()).flatten().map(|hash| hash[..10].to_owned())
}
