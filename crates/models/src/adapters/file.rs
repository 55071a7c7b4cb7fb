//! `pytorch_lora_weights.safetensors`: the factors, and peft's `LoraConfig` in the header.
//!
//! Source: `save_lora_weights` in `huggingface/diffusers:src/diffusers/loaders/`; `LoraConfig` in
//! `huggingface/peft:src/peft/tuners/lora/config.py`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tastemaker_math::Prediction;
use tastemaker_store::StoreError;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_weights::safetensors::{Header, Metadata};

use super::keys;
use super::noise::ChosenNoise;
use super::part::{LoraPart, found_ranks, layers, with_magnitudes};
use crate::ModelError;
use crate::nn::{LoraSpec, Ranks};
use crate::original::spelled;
use crate::pipeline::TextAdapters;

/// The file's name in a folder of diffusers adapters.
pub const FILE_NAME: &str = "pytorch_lora_weights.safetensors";

/// Where diffusers keeps the configuration in the header.
pub(super) const METADATA_KEY: &str = "lora_adapter_metadata";

/// Where a header says what the model predicts, as in files of kohya's scripts.
pub(super) const PREDICTION_KEY: &str = "modelspec.prediction_type";

/// The low-rank adapters of a pipeline's networks.
#[derive(Debug)]
pub struct LoraFile {
    /// That of the network that predicts, the UNet or the transformer in its place. It has no layers in a file for text encoders alone.
    pub unet: LoraPart,
    /// The name of that network: `unet` or `transformer`.
    pub component: &'static str,
    /// Those of text encoders, by component: `text_encoder`, `text_encoder_2`.
    pub text: BTreeMap<&'static str, LoraPart>,
    /// What their training changed of the model's noise.
    pub noise: ChosenNoise,
}

impl From<LoraPart> for LoraFile {
    fn from(unet: LoraPart) -> Self {
        Self { unet, component: keys::UNET, text: BTreeMap::new(), noise: ChosenNoise::default() }
    }
}

impl LoraFile {
    /// Reads adapters in diffusers' layout, today's spelling or the older one (`.lora.down.weight`,
    /// `.lora.up.weight`).
    ///
    /// PyTorch's own files (`.bin`, `.pt`) are read without running anything in them. Without metadata, ranks are read off the
    /// factors and each layer's alpha equals its rank.
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

        let mut factors: BTreeMap<&'static str, Named> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, tensor) in stored {
            match keys::ours(&name).filter(|_| tensor.is_floating_point()) {
                Some((component, ours)) => {
                    let taken = factors.entry(component).or_default().insert(ours, tensor);
                    unknown.extend(taken.map(|_| name));
                }
                None => unknown.push(name),
            }
        }
        if !unknown.is_empty() {
            let shown = unknown.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let found = format!("{} tensors that are no factors of an adapter ({shown})", unknown.len());
            let wanted = "names like `unet.<layer>.lora_A.weight`, or of text encoders, alone and each once";
            return Err(fault(found, wanted));
        }
        let refuse = |problems: String| ModelError::Config { path: path.to_owned(), problems };
        let noise = ChosenNoise::of_metadata(metadata);
        let metadata: Option<Value> = match metadata.get(METADATA_KEY) {
            None => None,
            Some(text) => {
                Some(serde_json::from_str(text).map_err(|e| refuse(format!("`{METADATA_KEY}`: {e}")))?)
            }
        };
        let file = Self::of_parts(path, factors, |component, factors| {
            let layers = layers(&factors);
            let found = found_ranks(&factors, &layers).map_err(|found| {
                fault(found, "for each layer a down factor `[r, ..]` and an up factor `[.., r]`")
            })?;
            let tensors = with_magnitudes(factors, &layers, |_, _| true).map_err(|found| {
                fault(found, "for DoRA a magnitude for each row of each layer's up factor")
            })?;
            let target_modules = layers.into_iter().collect();
            let alike = found.iter().map(|(layer, rank)| (layer.as_str(), *rank, *rank as f64));
            let bare = LoraPart { ranks: Ranks::of_layers(alike), target_modules, tensors };
            match &metadata {
                None => Ok(bare),
                Some(metadata) => bare.with_settings(component, metadata, &found).map_err(refuse),
            }
        })?;
        Ok(Self { noise, ..file })
    }

    /// Puts together what is made of each component's factors, none of which may be beyond use.
    pub(super) fn of_parts(
        path: &Path,
        factors: BTreeMap<&'static str, Named>,
        make: impl Fn(&'static str, Named) -> Result<LoraPart, ModelError>,
    ) -> Result<Self, ModelError> {
        if factors.is_empty() {
            return Err(StoreError::malformed(path, "no factors", "an adapter").into());
        }
        let checked = |component, factors| {
            let part = make(component, factors)?;
            let refuse = |problems| ModelError::Config { path: path.to_owned(), problems };
            part.check().map_err(refuse)?;
            Ok((component, part))
        };
        let made = factors.into_iter().map(|(component, factors)| checked(component, factors));
        let mut text = made.collect::<Result<BTreeMap<_, _>, ModelError>>()?;
        let transformer = text.remove(keys::TRANSFORMER).map(|part| (keys::TRANSFORMER, part));
        let unet = text.remove(keys::UNET).map(|part| (keys::UNET, part));
        if transformer.is_some() && unet.is_some() {
            return Err(StoreError::malformed(
                path,
                "factors of a UNet and of a transformer",
                "those of one",
            )
            .into());
        }
        let (component, unet) = transformer.or(unet).unwrap_or_else(|| (keys::UNET, LoraPart::empty()));
        Ok(Self { unet, component, text, noise: ChosenNoise::default() })
    }

    /// Every component that is adapted, with its adapter.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &LoraPart)> {
        let unet = Some((self.component, &self.unet)).filter(|(_, part)| !part.tensors.is_empty());
        unet.into_iter().chain(self.text.iter().map(|(component, part)| (*component, part)))
    }

    /// Every part [`LoraPart::scaled`].
    pub fn scaled(self, weight: f64) -> Self {
        let text = self.text.into_iter().map(|(component, part)| (component, part.scaled(weight)));
        Self { unet: self.unet.scaled(weight), text: text.collect(), ..self }
    }

    /// What networks need to be built with these adapters: the UNet, where it has one, and the text encoders.
    pub fn into_specs(self) -> (Option<LoraSpec>, TextAdapters) {
        let unet = (!self.unet.tensors.is_empty()).then(|| self.unet.into_spec());
        (unet, self.text.into_iter().map(|(component, part)| (component, part.into_spec())).collect())
    }

    /// Writes the adapters as diffusers' `save_lora_weights` does.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        self.write_of(path, None)
    }

    /// The same, the header saying what the model predicts that the adapters are of.
    ///
    /// # Errors
    /// As [`LoraFile::write`].
    pub fn write_of(&self, path: impl AsRef<Path>, prediction: Option<Prediction>) -> Result<(), ModelError> {
        let mut stored = Named::new();
        let mut config = Map::new();
        for (component, part) in self.parts() {
            let factors = part.tensors.iter();
            stored.extend(
                factors.map(|(name, tensor)| (keys::stored(component, name), tensor.shallow_clone())),
            );
            let settings = part.settings();
            config.extend(settings.into_iter().map(|(key, value)| (keys::stored(component, &key), value)));
        }
        let text = format!("{:#}", Value::Object(config));
        let mut metadata = self.noise.metadata();
        metadata.extend([("format".to_owned(), "pt".to_owned()), (METADATA_KEY.to_owned(), text)]);
        metadata.extend(prediction.map(|prediction| (PREDICTION_KEY.to_owned(), spelled(prediction).into())));
        Ok(tensors::write(path.as_ref(), &stored, &metadata)?)
    }
}

/// Every tensor of an adapter's file, and what its header says; PyTorch's own files have no header.
pub(super) fn stored(path: &Path) -> Result<(Named, Metadata), ModelError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if matches!(ending, Some("bin" | "pt" | "pth" | "ckpt")) {
        return Ok((tensors::read_weights(path)?, Metadata::new()));
    }
    let metadata = Header::read(path)?.metadata;
    Ok((tensors::read_weights(path)?, metadata))
}
