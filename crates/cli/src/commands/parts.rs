//! Flags that choose a model and its parts, the same in every command.

use std::path::PathBuf;

use anyhow::Result;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_run::{Key, ModelSection, keys};

use crate::commands::settings::section_args;
use crate::hub::locate;

/// Which parts go in place of a model's own, and which of several files to take.
#[derive(Debug, Clone, Default)]
pub struct PartFlags(ModelSection);

section_args!(PartFlags, part_keys);

fn part_keys() -> impl Iterator<Item = &'static Key> {
    let others = ["pretrained_model_name_or_path", "rescale_betas_zero_snr"];
    keys().filter(move |key| key.section() == "model" && !others.contains(&key.name()))
}

impl PartFlags {
    /// What takes the place of something of the model's own and so changes what it generates, by the names of the parameters in images.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let prediction = self.0.prediction_type.map(|prediction| format!("{prediction:?}"));
        let parts = [
            ("VAE", self.0.pretrained_vae_model_name_or_path.clone()),
            ("UNet", self.0.unet_init.clone()),
            ("Variant", self.0.variant.clone()),
            ("Revision", self.0.revision.clone()),
            ("Prediction", prediction),
        ];
        parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// As [`PartFlags::open`], with another UNet in place of the model's.
    ///
    /// # Errors
    /// As [`PartFlags::open`].
    pub fn open_with_unet(&self, model: &str, unet: &str) -> Result<Model> {
        Self(ModelSection { unet_init: Some(unet.to_owned()), ..self.0.clone() }).open(model)
    }

    /// Whether another UNet is named.
    pub fn has_unet(&self) -> bool {
        self.0.unet_init.is_some()
    }

    /// The same parts with the model's own UNet.
    pub fn without_unet(&self) -> Self {
        Self(ModelSection { unet_init: None, ..self.0.clone() })
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
            model: locate(model, self.0.revision.as_deref())?,
            config: find(&self.0.model_config)?,
            vae: find(&self.0.pretrained_vae_model_name_or_path)?,
            unet: find(&self.0.unet_init)?,
            variant: self.0.variant.clone(),
            prediction: self.0.prediction_type,
        })?)
    }
}
