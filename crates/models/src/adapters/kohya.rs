//! The adapter files of kohya's scripts, which A1111, Forge, ComfyUI, InvokeAI and diffusers load.
//!
//! Source: `kohya-ss/sd-scripts:networks/lora.py` (names and scale), `train_network.py` (`ss_*`),
//! `library/sai_model_spec.py` (`modelspec.*`), `library/train_util.py` (`sshs_*`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tastemaker_math::schedule::Prediction;
use tastemaker_store::StoreError;
use tastemaker_store::checksum;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_weights::safetensors::Metadata;
use tch::{Kind, Tensor};

use super::file::{LoraFile, stored};
use super::keys::{self, DOWN, MAGNITUDE};
use super::noise::ChosenNoise;
use super::part::{LoraPart, found_ranks, layers, with_magnitudes};
use crate::ModelError;
use crate::backbone::BackboneConfig;
use crate::nn::Ranks;
use crate::original::{Layout, architecture};
use crate::place::Change;

/// The file's name beside `pytorch_lora_weights.safetensors`, as diffusers' examples name it.
pub const KOHYA_FILE_NAME: &str = "pytorch_lora_weights_kohya.safetensors";

/// What a kohya file says about itself besides its tensors. No date, so that equal runs write equal files.
#[derive(Debug, Clone)]
pub struct KohyaFacts {
    /// The model family the adapter belongs to.
    pub layout: Layout,
    /// What the UNet predicts.
    pub prediction: Prediction,
    /// Side of the training images, in pixels.
    pub resolution: u32,
    /// Title shown by tools that list adapters.
    pub title: String,
    /// More `ss_*` entries, such as `ss_steps`; the prefix is added.
    pub training: BTreeMap<String, String>,
}

impl KohyaFacts {
    fn metadata(&self, ranks: &Ranks, is_dora: bool) -> Metadata {
        // As `networks/resize_lora.py` says it where layers differ.
        let common = |number: String| if ranks.is_uniform() { number } else { "Dynamic".to_owned() };
        let v2 = self.layout == Layout::Sd2;
        let velocity = self.prediction == Prediction::VPrediction;
        let side = self.resolution;
        let architecture = architecture(self.layout, self.prediction);
        let version = match self.layout {
            Layout::Sd1 => "sd_v1",
            Layout::Sd2 if velocity => "sd_v2_v",
            Layout::Sd2 => "sd_v2",
            Layout::Sdxl => "sdxl_base_v1-0",
            Layout::Sd3 => "sd3",
            Layout::ZImage => "zimage",
        };
        let implementation = match self.layout {
            Layout::Sdxl => "https://github.com/Stability-AI/generative-models",
            _ => "diffusers",
        };
        let truth = |yes: bool| if yes { "True" } else { "False" };
        let own = [
            ("ss_base_model_version", version.to_owned()),
            ("ss_network_module", if is_dora { "lycoris.kohya" } else { "networks.lora" }.to_owned()),
            ("ss_network_dim", common(ranks.rank.to_string())),
            ("ss_network_alpha", common(ranks.alpha.to_string())),
            ("ss_v2", truth(v2).to_owned()),
            ("ss_resolution", format!("({side}, {side})")),
            ("modelspec.sai_model_spec", "1.0.1".to_owned()),
            ("modelspec.architecture", format!("{architecture}/lora")),
            ("modelspec.implementation", implementation.to_owned()),
            ("modelspec.title", self.title.clone()),
            ("modelspec.resolution", format!("{side}x{side}")),
        ];
        // ModelSpec has no word for a flow's.
        let predicts = match self.prediction {
            Prediction::Epsilon => Some("epsilon"),
            Prediction::VPrediction => Some("v"),
            Prediction::Flow => None,
        };
        let predicts = predicts.map(|word| ("modelspec.prediction_type".to_owned(), word.to_owned()));
        let dora = is_dora.then(|| {
            let args = r#"{"algo": "lora", "dora_wd": "True", "wd_on_out": "True"}"#;
            ("ss_network_args".to_owned(), args.to_owned())
        });
        let training = self.training.iter().map(|(key, value)| (format!("ss_{key}"), value.clone()));
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        own.chain(predicts).chain(dora).chain(training).collect()
    }
}

impl LoraFile {
    /// Writes the adapter as kohya's scripts do: a `lora_down`, a `lora_up` and an `alpha` for every layer, with DoRA a
    /// `dora_scale` as LyCORIS has it, its `wd_on_out` being on.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a layer the UNet does not have; [`ModelError::Torch`] if the file cannot be written.
    pub fn write_kohya(
        &self,
        path: impl AsRef<Path>,
        config: &BackboneConfig,
        facts: &KohyaFacts,
    ) -> Result<(), ModelError> {
        let path = path.as_ref();
        let mut stored = Named::new();
        let layers = self.parts().flat_map(|(component, part)| {
            part.layers().into_iter().map(move |layer| (component, part, layer))
        });
        for (component, part, layer) in layers {
            let name = match component {
                own if own == config.component() => keys::kohya(facts.layout, config, &layer),
                text => keys::kohya_of_text(facts.layout, text, &layer),
            };
            let Some(name) = name else {
                let wanted = "a layer that SD1.x, SD2.x, SDXL, SD3 or Z-Image have";
                return Err(
                    StoreError::malformed(path, format!("layer `{layer}` of {component}"), wanted).into()
                );
            };
            for (ours, theirs) in keys::kohya_ends(facts.layout) {
                let Some(tensor) = part.tensors.get(&format!("{layer}{ours}")) else { continue };
                let tensor = match ours {
                    // One number for each row of the weight, with as many dimensions: `[out, 1]` or `[out, 1, 1, 1]`.
                    MAGNITUDE if tensor.dim() == 4 => tensor.reshape([-1, 1, 1, 1]),
                    MAGNITUDE => tensor.reshape([-1, 1]),
                    _ => tensor.shallow_clone(),
                };
                stored.insert(format!("{name}{theirs}"), tensor);
            }
            let kind = part.tensors.get(&format!("{layer}{DOWN}")).map_or(Kind::Float, Tensor::kind);
            stored.insert(
                format!("{name}{}", keys::KOHYA_ALPHA),
                Tensor::from(part.ranks.alpha(&layer)).to_kind(kind),
            );
        }
        let first = self.parts().next().map_or(&self.unet, |(_, part)| part);
        let mut metadata = facts.metadata(&first.ranks, first.is_dora());
        metadata.extend(self.noise.metadata());
        if self.noise.zero_terminal_snr {
            metadata.insert("ss_zero_terminal_snr".to_owned(), "True".to_owned());
        }
        let bytes = tensors::to_bytes(path, &stored, &training_part(&metadata))?;
        metadata.insert("sshs_model_hash".to_owned(), model_hash(&bytes));
        metadata.insert("sshs_legacy_hash".to_owned(), legacy_hash(&bytes));
        Ok(tensors::write(path, &stored, &metadata)?)
    }

    /// Reads adapters of a UNet or transformer and of text encoders in kohya's layout, the network's under diffusers' or under original
    /// block names, these also as ComfyUI spells them.
    ///
    /// # Errors
    /// [`ModelError::Store`] if the file is missing or damaged, or holds tensors that belong to no layer of the UNet
    /// or of the layout's text encoders.
    pub fn read_kohya(
        path: impl AsRef<Path>,
        layout: Layout,
        config: &BackboneConfig,
    ) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let (stored, metadata) = stored(path)?;
        Self::of_kohya(path, stored, &metadata, layout, config)
    }

    pub(super) fn of_kohya(
        path: &Path,
        stored: Named,
        metadata: &Metadata,
        layout: Layout,
        config: &BackboneConfig,
    ) -> Result<Self, ModelError> {
        let fault =
            |found: String, wanted: &str| ModelError::from(StoreError::malformed(path, found, wanted));
        let mut known: BTreeMap<String, BTreeSet<(String, Change)>> = BTreeMap::new();
        for name in config.shapes().keys() {
            let Some(layer) = name.strip_suffix(".weight") else { continue };
            for (spelled, change) in keys::kohya_spellings(layout, config, layer) {
                known.entry(spelled).or_default().insert((layer.to_owned(), change));
            }
        }
        // Each layer that a name stands for, and which rows of the up factor are its own.
        let places = |spelled: &str| -> Vec<((&'static str, String), Change)> {
            match known.get(spelled) {
                Some(layers) => {
                    let of_network = |layer: &String| (config.component(), layer.clone());
                    layers.iter().map(|(layer, change)| (of_network(layer), *change)).collect()
                }
                None => keys::text_of_kohya(layout, spelled)
                    .map(|place| (place, Change::None))
                    .into_iter()
                    .collect(),
            }
        };
        let mut factors: BTreeMap<&'static str, Named> = BTreeMap::new();
        let mut alphas = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, tensor) in stored {
            let (layer, ours) = keys::parted_kohya(&name).unwrap_or_default();
            let (places, is_alpha) = (places(layer), ours.is_empty());
            if places.is_empty() || is_alpha && tensor.numel() != 1 {
                unknown.push(name);
                continue;
            }
            for ((component, layer), change) in places {
                if is_alpha {
                    alphas.insert((component, layer), tensor.double_value(&[]));
                    continue;
                }
                let own = if ours == DOWN { tensor.shallow_clone() } else { rows(&tensor, change) };
                let taken = factors.entry(component).or_default().insert(format!("{layer}{ours}"), own);
                unknown.extend(taken.map(|_| name.clone()));
            }
        }
        if !unknown.is_empty() {
            let shown = unknown.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let found =
                format!("{} tensors that are no factors of this model's adapter ({shown})", unknown.len());
            let wanted = "`lora_down`, `lora_up`, `alpha` and `dora_scale` of the layers of UNet and text encoders alone";
            return Err(fault(found, wanted));
        }
        let alpha = |component, layer: &str, rank: i64| {
            alphas.get(&(component, layer.to_owned())).copied().unwrap_or(rank as f64)
        };
        Self::of_parts(path, factors, |component, factors| {
            let layers = layers(&factors);
            let found = found_ranks(&factors, &layers)
                .map_err(|found| fault(found, "a down and an up factor of the same rank for each layer"))?;
            let tensors = with_magnitudes(factors, &layers, |found, rows| found.first() == Some(&rows))
                .map_err(|found| {
                    fault(found, "for DoRA a `dora_scale` for each row of each layer's weight")
                })?;
            let each =
                found.iter().map(|(layer, rank)| (layer.as_str(), *rank, alpha(component, layer, *rank)));
            let ranks = Ranks::of_layers(each);
            Ok(LoraPart { ranks, target_modules: layers.into_iter().collect(), tensors })
        })
        .map(|file| Self { noise: ChosenNoise::of_metadata(metadata), ..file.shaped_for(config) })
    }
}

/// The rows of an up factor, or of magnitudes, that are one layer's.
fn rows(stored: &Tensor, change: Change) -> Tensor {
    match change {
        Change::Rows { part, of } => {
            let n = stored.size().first().copied().unwrap_or_default() / of as i64;
            stored.narrow(0, part as i64 * n, n).copy()
        }
        Change::Swapped => {
            let halves = stored.chunk(2, 0);
            Tensor::cat(&halves.iter().rev().collect::<Vec<_>>(), 0)
        }
        Change::None | Change::Pixels | Change::Transposed => stored.shallow_clone(),
    }
}

/// The entries that kohya hashes with the tensors.
fn training_part(metadata: &Metadata) -> Metadata {
    let is_training = |(key, _): &(&String, &String)| key.starts_with("ss_");
    metadata.iter().filter(is_training).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// SHA-256 of everything after the header.
fn model_hash(file: &[u8]) -> String {
    let header = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    checksum::sha256_bytes(&file[(header + 8).min(file.len())..])
}

/// The first eight digits of the SHA-256 of 64 KiB from the first mebibyte on, as A1111 once hashed checkpoints.
fn legacy_hash(file: &[u8]) -> String {
    let part = file.get(0x10_0000..).unwrap_or_default();
    checksum::sha256_bytes(&part[..part.len().min(0x1_0000)])[..8].to_owned()
}
