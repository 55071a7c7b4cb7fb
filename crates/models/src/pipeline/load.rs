//! Networks out of a model folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tastemaker_torch::Precision;
use tch::{Device, Tensor};

use super::component::{Stored, build, missing, read_config};
use super::index::{Family, ModelIndex};
use super::scheduler::SchedulerConfig;
use super::text::{self, TextEncoders};
use super::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::ModelError;
use crate::clip_text::{self, ClipTextConfig};
use crate::nn::{AdapterSwitch, LoraSpec, Role, Trainable, Weights};
use crate::unet::{UNet, UNetConfig};
use crate::vae::{self, Vae, VaeConfig};

/// A network with the tensors it was built from.
#[derive(Debug)]
pub struct Loaded<N> {
    /// The network.
    pub network: N,
    /// The parameters that receive gradients.
    pub trainable: Vec<Trainable>,
    /// Every parameter by its diffusers name; shares storage with the network.
    pub parameters: BTreeMap<String, Tensor>,
    /// Turns the network's adapters off and on.
    pub switch: AdapterSwitch,
}

/// A diffusers model folder. Opening it reads configurations; weights are read when a network is asked for.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    index: ModelIndex,
}

impl ModelFolder {
    /// Reads `model_index.json`, and checks that the components whose configurations are there fit each other.
    ///
    /// # Errors
    /// [`ModelError::Store`] if the folder or its index is not there; [`ModelError::Config`] for a model of another
    /// kind, a configuration that is not supported, and components that do not fit.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(missing(path, "a diffusers model folder").into());
        }
        let index_path = path.join("model_index.json");
        if !index_path.is_file() {
            return Err(missing(&index_path, "the index of a diffusers model folder").into());
        }
        let index = read_config(&index_path, ModelIndex::from_json)?;
        let folder = Self { path: path.to_owned(), index };
        folder.check_fit()?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `model_index.json` says.
    pub fn index(&self) -> &ModelIndex {
        &self.index
    }

    /// How the parts work together.
    pub fn family(&self) -> Family {
        self.index.family
    }

    /// The folder of a component, whether or not it is there.
    pub fn component(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The listed components whose folders are not there.
    pub fn absent(&self) -> Vec<&str> {
        let names = self.index.components.iter().map(String::as_str);
        names.filter(|name| !self.component(name).is_dir()).collect()
    }

    /// The UNet's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn unet_config(&self) -> Result<UNetConfig, ModelError> {
        read_config(&self.config_path("unet"), UNetConfig::from_json)
    }

    /// The VAE's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        read_config(&self.config_path("vae"), VaeConfig::from_json)
    }

    /// The noise the model was trained on and how its images are drawn.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn schedule(&self) -> Result<SchedulerConfig, ModelError> {
        let path = self.component("scheduler").join("scheduler_config.json");
        read_config(&path, SchedulerConfig::from_json)
    }

    /// The UNet; with `lora`, an adapter that trains whatever the role.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or damaged; [`ModelError::Config`], also for adapter targets
    /// that no layer answers to; [`ModelError::Weights`] naming every tensor that does not fit, the adapter's included.
    pub fn unet(
        &self,
        role: Role,
        precision: Precision,
        device: Device,
        lora: Option<LoraSpec>,
    ) -> Result<Loaded<UNet>, ModelError> {
        let config = self.unet_config()?;
        let stored = self.stored("unet")?;
        let path = stored.path().to_owned();
        let weights = Weights::from_source(stored, role, precision, device);
        build(weights, lora, path, |scope| UNet::new(scope, config, precision))
    }

    /// The image codec.
    ///
    /// # Errors
    /// As [`ModelFolder::unet`].
    pub fn vae(&self, role: Role, precision: Precision, device: Device) -> Result<Loaded<Vae>, ModelError> {
        let config = self.vae_config()?;
        let stored = self.stored("vae")?;
        let path = stored.path().to_owned();
        let weights = Weights::from_source(stored, role, precision, device);
        build(weights, None, path, |scope| Vae::new(scope, config, precision))
    }

    /// The text encoders with their tokenizers, frozen.
    ///
    /// # Errors
    /// As [`ModelFolder::unet`], and [`ModelError::Tokenizer`].
    pub fn text(&self, precision: Precision, device: Device) -> Result<TextEncoders, ModelError> {
        text::load(self, precision, device)
    }

    /// The weights of a network, under its own names, as they lie on disk.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or malformed.
    pub fn stored(&self, component: &str) -> Result<Stored, ModelError> {
        let folder = self.component(component);
        match component {
            "unet" => Stored::open(&folder, DIFFUSERS_STEM, |name| Some(name.to_owned())),
            "vae" => Stored::open(&folder, DIFFUSERS_STEM, vae::modern_name),
            _ => Stored::open(&folder, TRANSFORMERS_STEM, clip_text::modern_name),
        }
    }

    /// A text encoder's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn text_config(&self, component: &str) -> Result<ClipTextConfig, ModelError> {
        read_config(&self.config_path(component), ClipTextConfig::from_json)
    }

    fn config_path(&self, component: &str) -> PathBuf {
        self.component(component).join("config.json")
    }

    /// Checks every pair of components that hand tensors to each other, as far as their configurations are there.
    fn check_fit(&self) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        let unet = self.present("unet", Self::unet_config)?;
        let vae = self.present("vae", Self::vae_config)?;
        let mut encoders = Vec::new();
        for (name, _) in self.family().text_components() {
            encoders.push(self.present(name, |folder| folder.text_config(name))?);
        }
        if let (Some(unet), Some(vae)) = (&unet, &vae) {
            for (what, channels) in [("takes", unet.in_channels), ("predicts", unet.out_channels)] {
                if channels != vae.latent_channels {
                    let of_vae = vae.latent_channels;
                    problems.push(format!(
                        "the UNet {what} {channels} channels, the VAE's latents have {of_vae}"
                    ));
                }
            }
        }
        let encoders: Option<Vec<_>> = encoders.into_iter().collect();
        if let (Some(unet), Some(encoders)) = (&unet, &encoders) {
            let width: i64 = encoders.iter().map(|config| config.encoder.width).sum();
            if unet.cross_attention_dim != width {
                let wanted = unet.cross_attention_dim;
                problems.push(format!(
                    "the UNet attends to text of width {wanted}, the text encoders give {width}"
                ));
            }
            problems.extend(self.check_addition(unet, encoders));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Config { path: self.path.join("model_index.json"), problems: problems.join("; ") })
    }

    /// SDXL's additional conditioning: there exactly when the family has it, and as wide as what it is given.
    fn check_addition(&self, unet: &UNetConfig, encoders: &[ClipTextConfig]) -> Option<String> {
        match (self.family(), unet.text_time) {
            (Family::StableDiffusion, None) => None,
            (Family::StableDiffusion, Some(_)) => Some(
                "the UNet wants SDXL's pooled text and sizes, which StableDiffusionPipeline does not give"
                    .into(),
            ),
            (Family::StableDiffusionXl, None) => Some(
                "the UNet's `addition_embed_type` is null; StableDiffusionXLPipeline needs text_time".into(),
            ),
            (Family::StableDiffusionXl, Some(text_time)) => {
                let second = &encoders[encoders.len() - 1];
                let given = second.projection_dim + 6 * text_time.time_embed_dim;
                if !second.with_projection {
                    Some("`text_encoder_2` has no projection; wanted CLIPTextModelWithProjection".into())
                } else if text_time.input_dim != given {
                    let wanted = text_time.input_dim;
                    Some(format!(
                        "the UNet's additional embedding takes {wanted} values, pooled text and sizes are {given}"
                    ))
                } else {
                    None
                }
            }
        }
    }

    /// A component's configuration, if its folder has one.
    fn present<C>(
        &self,
        component: &str,
        read: impl Fn(&Self) -> Result<C, ModelError>,
    ) -> Result<Option<C>, ModelError> {
        if self.config_path(component).is_file() { read(self).map(Some) } else { Ok(None) }
    }
}
