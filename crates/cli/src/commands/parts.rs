//! Flags that choose a model and its parts, the same in every command.

use std::path::PathBuf;

use anyhow::Result;
use tastemaker_math::number;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_run::{Key, ModelSection, keys};

use crate::commands::settings::section_args;
use crate::exit::{Blame, UsageError};
use crate::hub::locate;
use crate::models::{Chosen, Found, find, plan_beside, sources, token_length};

/// Which parts go in place of a model's own, and which of several files to take.
#[derive(Debug, Clone, Default)]
pub struct PartFlags(ModelSection);

section_args!(PartFlags, part_keys);

fn part_keys() -> impl Iterator<Item = &'static Key> {
    let others = ["pretrained_model_name_or_path", "rescale_betas_zero_snr", "max_token_length"];
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
            ("Shift", self.0.shift.map(number)),
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

    /// Finds and opens a whole model.
    ///
    /// # Errors
    /// [`UsageError`] for a LoRA, or a run that ended in one; as [`PartFlags::choose`].
    pub fn open(&self, model: &str) -> Result<Model> {
        match self.choose(model)? {
            Chosen { model, lora: None, .. } => Ok(model),
            Chosen { lora: Some(_), .. } => Err(UsageError(format!(
                "{model} is a LoRA, and a whole model is wanted here; `tastemaker model merge` makes one of it and its base"
            ))
            .into()),
        }
    }

    /// Finds and opens a model, or what a run made: its model, its UNet in the model it began with, or that model with its LoRA.
    ///
    /// # Errors
    /// [`UsageError`] for a part whose model is not known; those of [`find`] and [`Model::from_sources`].
    pub fn choose(&self, name: &str) -> Result<Chosen> {
        self.chosen(name).of_model()
    }

    fn chosen(&self, name: &str) -> Result<Chosen> {
        let unknown = |what: &str| {
            UsageError(format!(
                "{name} is {what}, and nothing says of which model: name the model, and this beside it"
            ))
        };
        let (sources, lora, base) = match find(name, self.0.revision.as_deref())? {
            Found::Model(path) => {
                let max_token_length = token_length(&path);
                (ModelSources { max_token_length, ..sources(path)? }, None, None)
            }
            Found::Lora(lora, Some(base)) => ((*base).clone(), Some(lora), Some(base)),
            Found::UNet(unet, Some(base)) => {
                (ModelSources { unet: Some(unet), ..(*base).clone() }, None, Some(base))
            }
            Found::Lora(_, None) => return Err(unknown("a LoRA").into()),
            Found::UNet(..) => return Err(unknown("a UNet alone").into()),
            Found::Folder(path) => (ModelSources::of(path), None, None),
        };
        Ok(Chosen { model: Model::from_sources(&self.over(sources)?)?, lora, base })
    }

    /// These parts in place of those of a model.
    ///
    /// # Errors
    /// Those of [`locate`].
    pub fn over(&self, sources: ModelSources) -> Result<ModelSources> {
        let find = |name: &Option<String>, own: Option<PathBuf>| -> Result<Option<PathBuf>> {
            name.as_deref().map_or(Ok(own), |name| locate(name, None).map(Some))
        };
        // The UNet of a run is of the noise that the run was set to.
        let unet = find(&self.0.unet_init, sources.unet)?;
        let of_unet = match (&self.0.unet_init, &unet) {
            (Some(_), Some(unet)) => plan_beside(unet)?,
            _ => None,
        };
        let of_unet = of_unet.as_deref();
        Ok(ModelSources {
            model: sources.model,
            config: find(&self.0.model_config, sources.config)?,
            vae: find(&self.0.pretrained_vae_model_name_or_path, sources.vae)?,
            unet,
            variant: self.0.variant.clone().or(sources.variant),
            prediction: self
                .0
                .prediction_type
                .or(of_unet.and_then(|of| of.prediction))
                .or(sources.prediction),
            zero_terminal_snr: sources.zero_terminal_snr || of_unet.is_some_and(|of| of.zero_terminal_snr),
            shift: self.0.shift.or(of_unet.and_then(|of| of.shift)).or(sources.shift),
            max_token_length: sources.max_token_length,
        })
    }
}
