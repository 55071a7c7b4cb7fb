//! Flags that choose a model and its parts, the same in every command.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_math::Prediction;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_run::ModelSection;

use crate::commands::word;
use crate::hub::locate;

/// Which parts go in place of a model's own, and which of several files to take.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model", rename_all = "snake_case")]
pub struct PartFlags {
    /// Another VAE: its folder, a folder with vae/, a file under original names, or the name of a fetched one
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "vae")]
    pretrained_vae_model_name_or_path: Option<String>,
    /// Another UNet: its folder, a folder with unet/, or the name of a fetched one
    #[arg(long, value_name = "DIR|ORG/NAME")]
    unet_init: Option<String>,
    /// A folder whose configurations, tokenizers and schedule go with a single-file checkpoint [default: as published]
    #[arg(long, value_name = "DIR|ORG/NAME")]
    model_config: Option<String>,
    /// Which weights to take where a folder has several, such as fp16 [default: those of no variant]
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Branch, tag or commit of a fetched model [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// What the network predicts, where the model is wrong or silent about it: epsilon, v_prediction
    #[arg(long, value_name = "TYPE", value_parser = word::<Prediction>)]
    prediction_type: Option<Prediction>,
}

impl PartFlags {
    /// As a recipe says it.
    pub fn section(self, pretrained_model_name_or_path: Option<String>) -> ModelSection {
        ModelSection {
            pretrained_model_name_or_path,
            pretrained_vae_model_name_or_path: self.pretrained_vae_model_name_or_path,
            unet_init: self.unet_init,
            model_config: self.model_config,
            variant: self.variant,
            revision: self.revision,
            prediction_type: self.prediction_type,
            rescale_betas_zero_snr: None,
        }
    }

    /// What takes the place of something of the model's own and so changes what it generates, by the names that images are told.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let prediction = self.prediction_type.map(|prediction| format!("{prediction:?}"));
        let parts = [
            ("VAE", self.pretrained_vae_model_name_or_path.clone()),
            ("UNet", self.unet_init.clone()),
            ("Variant", self.variant.clone()),
            ("Revision", self.revision.clone()),
            ("Prediction", prediction),
        ];
        parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// As [`PartFlags::open`], with another UNet in place of the model's.
    ///
    /// # Errors
    /// As [`PartFlags::open`].
    pub fn open_with_unet(&self, model: &str, unet: &str) -> Result<Model> {
        Self { unet_init: Some(unet.to_owned()), ..self.clone() }.open(model)
    }

    /// Whether another UNet is named.
    pub fn has_unet(&self) -> bool {
        self.unet_init.is_some()
    }

    /// The same parts with the model's own UNet.
    pub fn without_unet(&self) -> Self {
        Self { unet_init: None, ..self.clone() }
    }

    /// Finds and opens a model.
    ///
    /// # Errors
    /// Those of [`locate`] and [`Model::from_sources`].
    pub fn open(&self, model: &str) -> Result<Model> {
        let find = |name: &Option<String>| -> Result<Option<PathBuf>> {
            name.as_deref().map(|name| locate(name, None)).transpose()
        };
        Ok(Model::from_sources(&ModelSources {
            model: locate(model, self.revision.as_deref())?,
            config: find(&self.model_config)?,
            vae: find(&self.pretrained_vae_model_name_or_path)?,
            unet: find(&self.unet_init)?,
            variant: self.variant.clone(),
            prediction: self.prediction_type,
        })?)
    }
}
