//! A model in memory that generates, with the LoRA it was given.

use tastemaker_models::adapters::LoraFile;
use tastemaker_models::backbone::Backbone;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_store::dtype::DType;
use tch::Device;

use crate::{GenerateError, Generator, Networks};

/// A model opened for generating.
pub struct LoadedModel {
    /// Its VAE, text encoders and schedule.
    pub generator: Generator<'static>,
    /// Its denoiser.
    pub backbone: Backbone,
}

impl LoadedModel {
    /// Loads a model for images of these prompts and negative prompts, with a LoRA of the network that predicts and of text encoders if
    /// there is one.
    ///
    /// # Errors
    /// [`GenerateError::Model`] for whatever the folder lacks, and for a LoRA that does not fit.
    pub fn open<'t>(
        model: &Model,
        lora: Option<LoraFile>,
        texts: impl IntoIterator<Item = &'t str>,
        precision: DType,
        device: Device,
    ) -> Result<Self, GenerateError> {
        let (adapter, text) = lora.map(LoraFile::into_specs).unwrap_or_default();
        let generator = Generator::of_texts(model, text, texts, precision, device)?;
        Ok(Self { generator, backbone: model.backbone(Role::Frozen, precision, device, adapter)?.network })
    }

    /// Its denoiser, without a negative one.
    pub fn networks(&self) -> Networks<'_> {
        Networks { denoiser: &self.backbone, negative: None }
    }
}
