//! `pytorch_lora_weights.safetensors`: the factors, and peft's `LoraConfig` in the header.
//!
//! Source: `save_lora_weights` in `huggingface/diffusers:src/diffusers/loaders/`; `LoraConfig` in
//! `huggingface/peft:src/peft/tuners/lora/config.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};
use tastemaker_store::StoreError;
use tastemaker_store::safetensors::{Header, Metadata};
use tastemaker_torch::tensors::{self, Named};

use super::keys::{self, DOWN, MAGNITUDE, UP};
use crate::ModelError;
use crate::config::ConfigReader;
use crate::names::answers_to;
use crate::nn::{LoraSpec, Ranks};

/// The file's name in a folder of diffusers adapters.
pub const FILE_NAME: &str = "pytorch_lora_weights.safetensors";

/// Where diffusers keeps the configuration in the header.
const METADATA_KEY: &str = "lora_adapter_metadata";

/// Keys of peft's configuration that say nothing about the update itself.
const ANNOTATIONS: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// A low-rank adapter of a UNet.
#[derive(Debug)]
pub struct LoraFile {
    /// Rank and alpha of each layer.
    pub ranks: Ranks,
    /// Ends of the names of the adapted layers.
    pub target_modules: Vec<String>,
    /// Factors by `<layer>.lora_A.weight` and `<layer>.lora_B.weight`; for DoRA also `<layer>.lora_magnitude_vector`, of shape
    /// `[out]`, for convolutions `[1, out, 1, 1]`.
    pub tensors: Named,
}

impl LoraFile {
    /// Reads an adapter in diffusers' layout, today's spelling or the older one (`.lora.down.weight`,
    /// `.lora.up.weight`).
    ///
    /// PyTorch's own files (`.bin`, `.pt`) are read without running anything in them. Without metadata, ranks are read off the factors and each layer's alpha equals its rank.
    ///
    /// # Errors
    /// [`ModelError::Store`] if the file is missing, damaged, or holds anything but complete pairs of factors;
    /// [`ModelError::Config`] if the header asks for a kind of adapter that is not supported.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let (stored, metadata) = stored(path)?;
        Self::of_stored(path, stored, &metadata)
    }

    pub(super) fn of_stored(path: &Path, stored: Named, metadata: &Metadata) -> Result<Self, ModelError> {
        let fault =
            |found: String, wanted: &str| ModelError::from(StoreError::malformed(path, found, wanted));

        let mut factors = Named::new();
        let mut unknown = Vec::new();
        for (name, tensor) in stored {
            match keys::ours(&name) {
                Some(ours) if tensor.is_floating_point() && !factors.contains_key(&ours) => {
                    factors.insert(ours, tensor);
                }
                _ => unknown.push(name),
            }
        }
        if !unknown.is_empty() {
            let shown = unknown.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let found =
                format!("{} tensors that are no factors of a UNet's adapter ({shown})", unknown.len());
            return Err(fault(found, "names like `unet.<layer>.lora_A.weight` alone, each once"));
        }
        let layers = layers(&factors);
        let found = found_ranks(&factors, &layers).map_err(|found| {
            fault(found, "for each layer a down factor `[r, ..]` and an up factor `[.., r]`")
        })?;

        let factors = with_magnitudes(factors, &layers, |_, _| true)
            .map_err(|found| fault(found, "for DoRA a magnitude for each row of each layer's up factor"))?;
        let use_dora = factors.keys().any(|name| name.ends_with(MAGNITUDE));

        let refuse = |problems: String| ModelError::Config { path: path.to_owned(), problems };
        let config = match metadata.get(METADATA_KEY) {
            None => {
                let alike = found.iter().map(|(layer, rank)| (layer.as_str(), *rank, *rank as f64));
                Settings { ranks: Ranks::of_layers(alike), target_modules: None }
            }
            Some(text) => {
                let value =
                    serde_json::from_str(text).map_err(|e| refuse(format!("`{METADATA_KEY}`: {e}")))?;
                Settings::from_json(&value, &found, use_dora).map_err(refuse)?
            }
        };
        let target_modules = config.target_modules.unwrap_or_else(|| layers.iter().cloned().collect());
        Ok(Self { ranks: config.ranks, target_modules, tensors: factors })
    }

    /// Writes the adapter as diffusers' `save_lora_weights` does.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let stored =
            self.tensors.iter().map(|(name, tensor)| (keys::stored(name), tensor.shallow_clone())).collect();
        let number = |n: f64| if n.fract() == 0.0 { json!(n as i64) } else { json!(n) };
        let Ranks { rank, alpha, rank_pattern, alpha_pattern } = &self.ranks;
        let alpha_pattern: Map<_, _> = alpha_pattern.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
        let mut targets = self.target_modules.clone();
        targets.sort();
        let config = json!({
            "alpha_pattern": alpha_pattern, "bias": "none", "lora_alpha": number(*alpha), "lora_bias": false,
            "lora_dropout": 0.0, "peft_type": "LORA", "r": rank, "rank_pattern": rank_pattern, "target_modules": targets,
            "use_dora": self.is_dora(), "use_rslora": false,
        });
        let entries = config.as_object().into_iter().flatten();
        let config: Map<_, _> = entries.map(|(key, value)| (keys::stored(key), value.clone())).collect();
        let text = format!("{:#}", Value::Object(config));
        let metadata = [("format".to_owned(), "pt".to_owned()), (METADATA_KEY.to_owned(), text)].into();
        Ok(tensors::write(path.as_ref(), &stored, &metadata)?)
    }

    /// Whether lengths of rows are learnt apart from their directions.
    pub fn is_dora(&self) -> bool {
        self.tensors.keys().any(|name| name.ends_with(MAGNITUDE))
    }

    /// Names of the adapted layers.
    pub fn layers(&self) -> BTreeSet<String> {
        layers(&self.tensors)
    }

    /// What a network needs to be built with this adapter: it goes to exactly the layers the file has factors for.
    pub fn into_spec(self) -> LoraSpec {
        LoraSpec {
            use_dora: self.is_dora(),
            ranks: self.ranks,
            target_modules: layers(&self.tensors).into_iter().collect(),
            seed: 0,
            tensors: Some(self.tensors),
            anchored: false,
        }
    }

    /// As [`LoraFile::into_spec`], for a network whose reference has this adapter too: it stays the network's anchor.
    pub fn into_start(self) -> LoraSpec {
        LoraSpec { anchored: true, ..self.into_spec() }
    }
}

/// Every tensor of an adapter's file, and what its header says; PyTorch's own files have no header.
pub(super) fn stored(path: &Path) -> Result<(Named, Metadata), ModelError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if matches!(ending, Some("bin" | "pt" | "pth" | "ckpt")) {
        return Ok((tensors::read_legacy(path)?, Metadata::new()));
    }
    let metadata = Header::read(path)?.metadata;
    Ok((tensors::read(path)?, metadata))
}

/// Names of the adapted layers.
pub(super) fn layers(factors: &Named) -> BTreeSet<String> {
    let layer = |name: &String| {
        [DOWN, UP, MAGNITUDE].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned)
    };
    factors.keys().filter_map(layer).collect()
}

/// The factors with magnitudes in our shapes, or what is wrong with them: all layers have one or none has. `fits` judges the
/// shape a file has one in, given the number of rows.
pub(super) fn with_magnitudes(
    mut factors: Named,
    layers: &BTreeSet<String>,
    fits: impl Fn(&[i64], i64) -> bool,
) -> Result<Named, String> {
    if !factors.keys().any(|name| name.ends_with(MAGNITUDE)) {
        return Ok(factors);
    }
    for layer in layers {
        let up = factors.get(&format!("{layer}{UP}")).map_or_else(Vec::new, tch::Tensor::size);
        let rows = up.first().copied().unwrap_or_default();
        let ours = if up.len() == 4 { vec![1, rows, 1, 1] } else { vec![rows] };
        let Some(magnitude) = factors.get_mut(&format!("{layer}{MAGNITUDE}")) else {
            return Err(format!("`{layer}` without magnitudes, which other layers have"));
        };
        let found = magnitude.size();
        if magnitude.numel() as i64 != rows || !fits(&found, rows) {
            return Err(format!("`{layer}` with magnitudes {found:?} for {rows} rows"));
        }
        *magnitude = magnitude.reshape(ours);
    }
    Ok(factors)
}

/// The rank of each layer's factors, or what is wrong with them.
pub(super) fn found_ranks(
    factors: &Named,
    layers: &BTreeSet<String>,
) -> Result<BTreeMap<String, i64>, String> {
    if layers.is_empty() {
        return Err("no factors".to_owned());
    }
    let rank = |layer: &String| {
        let shape = |end: &str| factors.get(&format!("{layer}{end}")).map(tch::Tensor::size);
        let (Some(down), Some(up)) = (shape(DOWN), shape(UP)) else {
            return Err(format!("`{layer}` with one factor of two"));
        };
        match (down.first(), up.get(1)) {
            (Some(rank), Some(same)) if rank == same && *rank > 0 => Ok((layer.clone(), *rank)),
            _ => Err(format!("`{layer}` with factors {down:?} and {up:?}")),
        }
    };
    layers.iter().map(rank).collect()
}

/// What the header says.
struct Settings {
    ranks: Ranks,
    /// `None` where peft was given a regular expression.
    target_modules: Option<Vec<String>>,
}

impl Settings {
    /// Reads peft's configuration of the UNet. Switches that are off, as most of them are, need no name here.
    fn from_json(metadata: &Value, found: &BTreeMap<String, i64>, use_dora: bool) -> Result<Self, String> {
        let Some(entries) = metadata.as_object() else {
            return Err(format!("`{METADATA_KEY}` is {metadata}"));
        };
        let entries = entries.iter().filter_map(|(key, value)| Some((key.strip_prefix(keys::UNET)?, value)));
        let config: Map<_, _> = entries
            .filter(|(_, value)| !is_off(value))
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        let mut r = ConfigReader::new(&Value::Object(config));
        let common = found.values().next().copied().unwrap_or(1);
        let rank = r.or("r", common);
        let alpha = r.or("lora_alpha", rank as f64);
        let rank_pattern = pattern(&mut r, "rank_pattern");
        let alpha_pattern = pattern(&mut r, "alpha_pattern");
        let said = |layer: &str| first(&rank_pattern, layer).map_or(rank, |rank| rank as i64);
        for (layer, found) in found.iter().filter(|(layer, found)| said(layer) != **found).take(1) {
            let wanted = said(layer);
            r.problem(format!(
                "`r` and `rank_pattern` give `{layer}` rank {wanted}; its factors have rank {found}"
            ));
        }
        let target_modules = match r.raw("target_modules") {
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let said = r.or("use_dora", false);
        if said != use_dora {
            let there = if use_dora { "magnitudes" } else { "no magnitudes" };
            r.problem(format!("`use_dora` is {said}; the file has {there}"));
        }
        r.neutral("peft_type", &[json!("LORA")]);
        r.neutral("bias", &[json!("none")]);
        for key in ANNOTATIONS {
            r.ignored(key);
        }
        r.finish()?;
        let alpha = |layer: &str| first(&alpha_pattern, layer).unwrap_or(alpha);
        let layers = found.iter().map(|(layer, rank)| (layer.as_str(), *rank, alpha(layer)));
        Ok(Self { ranks: Ranks::of_layers(layers), target_modules })
    }
}

/// One of peft's patterns in its own order, which decides where several keys fit a layer.
fn pattern(r: &mut ConfigReader, key: &str) -> Vec<(String, f64)> {
    let entries = match r.raw(key) {
        None => return Vec::new(),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            r.problem(format!("`{key}` is {other}; wanted names with numbers"));
            return Vec::new();
        }
    };
    let mut pattern = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let is_name = !name.trim_start_matches('^').contains(is_regex);
        match value.as_f64().filter(|value| is_name && *value > 0.0) {
            Some(value) => pattern.push((name, value)),
            None => {
                r.problem(format!("`{key}` has `{name}` with {value}; wanted names with positive numbers"))
            }
        }
    }
    pattern
}

/// What gives a regular expression away: peft takes them for names, and reads a plain name as one.
fn is_regex(letter: char) -> bool {
    r"\*+?()[]{}|^$".contains(letter)
}

fn first(pattern: &[(String, f64)], layer: &str) -> Option<f64> {
    pattern.iter().find(|(key, _)| answers_to(layer, key)).map(|(_, value)| *value)
}

/// Null, false, or empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}
