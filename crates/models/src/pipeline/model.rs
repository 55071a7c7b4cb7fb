//! Networks out of a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tastemaker_math::schedule::Prediction;
use tastemaker_store::dtype::{BasePrecision, DType};
use tch::Device;

use super::component::{Build, Loaded, Stored, build, missing};
use super::index::{Family, ModelIndex};
use super::part::{Config, Part};
use super::scheduler::SchedulerConfig;
use super::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::ModelError;
use crate::adapters::ChosenNoise;
use crate::backbone::{Backbone, BackboneConfig};
use crate::clip_text::{self, ClipTextConfig};
use crate::nn::{LoraSpec, Role};
use crate::qwen3::{self, Qwen3Config};
use crate::t5::{self, T5Config};
use crate::tokenizer::TokenizerFiles;
use crate::unet::{UNet, UNetConfig};
use crate::vae::{self, AutoencoderKl, VaeConfig};

/// A model: a diffusers folder or a single-file checkpoint, and other parts in place of some of its own. Opening it reads
/// configurations; weights are read when a network is asked for.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) path: PathBuf,
    pub(super) index: ModelIndex,
    /// `model_index.json`.
    pub(super) index_config: Config,
    /// By component, every one the index lists.
    pub(super) parts: BTreeMap<String, Part>,
    pub(super) variant: Option<String>,
    pub(super) prediction: Option<Prediction>,
    /// Whether noise levels are brought to end in pure noise, where the configuration does not do so.
    pub(super) zero_terminal_snr: bool,
    /// Shift of a flow's noise levels, where it is not the configuration's.
    pub(super) shift: Option<f64>,
    /// Chunks that prompts are encoded in.
    pub(super) n_chunks: usize,
    /// What the large linear layers of a frozen denoiser are held in, where not in the compute type.
    pub(super) base_precision: Option<BasePrecision>,
}

impl Model {
    /// The folder or the single file.
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

    /// Whether a component is listed and there.
    pub fn has(&self, component: &str) -> bool {
        self.parts.get(component).is_some_and(Part::exists)
    }

    /// Whether a component is listed and has weights somewhere.
    pub(super) fn has_weights(&self, component: &str) -> bool {
        self.parts.get(component).is_some_and(|part| part.exists() && !matches!(part, Part::Files(_)))
    }

    /// The configuration of the network that predicts.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn backbone_config(&self) -> Result<BackboneConfig, ModelError> {
        let family = self.family();
        self.config(family.backbone()).read(|config| BackboneConfig::from_json(family, config))
    }

    /// The UNet's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn unet_config(&self) -> Result<UNetConfig, ModelError> {
        self.config("unet").read(UNetConfig::from_json)
    }

    /// The VAE's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        self.config("vae").read(VaeConfig::from_json)
    }

    /// Side of the images that it was made for, in pixels, as diffusers generates them: what its network says, less for a file of
    /// SD2.x that predicts noise, as the models of 512 pixels do.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn made_for(&self) -> Result<u32, ModelError> {
        let latent = self.backbone_config()?.sample_size().unsigned_abs() as u32;
        let side = latent * self.vae_config()?.downsampling() as u32;
        let is_base = self.path.is_file()
            && side == 768
            && self.schedule()?.schedule.prediction() == Prediction::Epsilon;
        Ok(if is_base { 512 } else { side })
    }

    /// A text encoder's configuration.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn text_config(&self, component: &str) -> Result<ClipTextConfig, ModelError> {
        self.config(component).read(ClipTextConfig::from_json)
    }

    /// The configuration of T5's encoder; `None` for a model that has none.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn t5_config(&self) -> Result<Option<T5Config>, ModelError> {
        let component = self.t5_components().map(|(encoder, _)| encoder);
        component.map(|component| self.config(component).read(T5Config::from_json)).transpose()
    }

    /// Folder names of T5's encoder and of its tokenizer, where the model lists them.
    pub(super) fn t5_components(&self) -> Option<(&'static str, &'static str)> {
        self.family().t5_components().filter(|(encoder, _)| self.parts.contains_key(*encoder))
    }

    /// The configuration of Qwen's encoder; `None` for a family that has none.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn qwen_config(&self) -> Result<Option<Qwen3Config>, ModelError> {
        let component = self.family().qwen_components().map(|(encoder, _)| encoder);
        component.map(|component| self.config(component).read(Qwen3Config::from_json)).transpose()
    }

    /// Folder names of every text encoder that the model lists, and of its tokenizer.
    pub(super) fn text_parts(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.family().encoders().filter(|(encoder, _)| self.parts.contains_key(*encoder))
    }

    /// The noise the model was trained on and how its images are drawn.
    ///
    /// # Errors
    /// [`ModelError::Store`] or [`ModelError::Config`].
    pub fn schedule(&self) -> Result<SchedulerConfig, ModelError> {
        let config = self.scheduler_config();
        let found = config.read(SchedulerConfig::from_json)?;
        let found = if self.zero_terminal_snr { found.with_zero_terminal_snr() } else { found };
        let schedule = match self.prediction {
            Some(prediction) => found.schedule.with_prediction(prediction),
            None => Ok(found.schedule),
        };
        let schedule = schedule.map(|schedule| schedule.with_spread(self.family().spread()));
        let schedule = schedule.and_then(|schedule| match self.shift {
            Some(shift) => schedule.with_shift(shift),
            None => Ok(schedule),
        });
        let path = || config.path().to_owned();
        let schedule =
            schedule.map_err(|error| ModelError::Config { path: path(), problems: error.to_string() })?;
        Ok(SchedulerConfig { schedule, ..found })
    }

    /// This model on the noise that the training of an adapter was set to. A prediction that was chosen for the model remains.
    ///
    /// # Errors
    /// [`ModelError`] for noise levels that cannot be read, or that the prediction does not go with.
    pub fn on_noise(self, chosen: ChosenNoise) -> Result<Self, ModelError> {
        let prediction = self.prediction.or(chosen.prediction);
        let zero_terminal_snr = self.zero_terminal_snr || chosen.zero_terminal_snr;
        let model = Self { prediction, zero_terminal_snr, ..self };
        model.schedule().map(|_| model)
    }

    /// This model with the large linear layers of its denoiser held in few bits wherever they are frozen.
    #[must_use]
    pub fn with_base_precision(self, base_precision: Option<BasePrecision>) -> Self {
        Self { base_precision, ..self }
    }

    /// Whether the networks keep within the range of a type. What enters Z-Image's feed-forward layers reaches 344,064, float16 ends
    /// at 65,504; ComfyUI does not run it in float16 either.
    ///
    /// # Errors
    /// [`ModelError::Choice`].
    pub fn check_precision(&self, precision: DType) -> Result<(), ModelError> {
        if self.family() != Family::ZImage || precision != DType::F16 {
            return Ok(());
        }
        let path = self.path.display();
        Err(ModelError::Choice(format!(
            "{path} leaves the range of fp16; give --mixed_precision bf16, or no"
        )))
    }

    /// The network that predicts; with `lora`, an adapter that trains whatever the role.
    ///
    /// # Errors
    /// As [`Model::unet`].
    pub fn backbone(
        &self,
        role: Role,
        precision: DType,
        device: Device,
        lora: Option<LoraSpec>,
    ) -> Result<Loaded<Backbone>, ModelError> {
        self.check_precision(precision)?;
        let config = self.backbone_config()?;
        let how = Build { role, precision, device, lora, base: self.base_precision };
        let stored = self.stored(self.family().backbone())?;
        build(stored, how, |scope| Backbone::new(scope, config.clone(), precision))
    }

    /// The UNet; with `lora`, an adapter that trains whatever the role.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or damaged; [`ModelError::Config`], also for adapter targets
    /// that no layer answers to; [`ModelError::Weights`] naming every tensor that does not fit, the adapter's included.
    pub fn unet(
        &self,
        role: Role,
        precision: DType,
        device: Device,
        lora: Option<LoraSpec>,
    ) -> Result<Loaded<UNet>, ModelError> {
        let config = self.unet_config()?;
        let how = Build { role, precision, device, lora, base: self.base_precision };
        build(self.stored("unet")?, how, |scope| UNet::new(scope, config.clone(), precision))
    }

    /// The VAE, beside networks of this precision; [`VaeConfig::runs_in`] says which its own is.
    ///
    /// # Errors
    /// As [`Model::unet`].
    pub fn vae(
        &self,
        role: Role,
        precision: DType,
        device: Device,
    ) -> Result<Loaded<AutoencoderKl>, ModelError> {
        let config = self.vae_config()?;
        let precision = config.runs_in(precision);
        let how = Build { role, precision, device, lora: None, base: None };
        build(self.stored("vae")?, how, |scope| AutoencoderKl::new(scope, config.clone(), precision))
    }

    /// Compares names and shapes of the tensors of the network that predicts with what its configuration asks for, without reading
    /// them.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or malformed, [`ModelError::Weights`] with every name that does not
    /// fit.
    pub fn check_backbone(&self) -> Result<(), ModelError> {
        let stored = self.stored(self.family().backbone())?;
        let report = stored.fit(&self.backbone_config()?.shapes());
        if report.is_clean() {
            Ok(())
        } else {
            Err(ModelError::Weights { path: stored.path().to_owned(), report: Box::new(report) })
        }
    }

    /// The weights of a network, under its own names, as they lie on disk.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or malformed.
    pub fn stored(&self, component: &str) -> Result<Stored, ModelError> {
        let variant = self.variant.as_deref();
        match self.part(component) {
            Part::Held { file, map, .. } => Stored::held(&file, &map),
            Part::Files(_) => Err(missing(&self.path.join(component), "the weights of a component").into()),
            Part::Folder(folder) => match component {
                "unet" | "transformer" => {
                    Stored::open(&folder, DIFFUSERS_STEM, variant, |name| Some(name.to_owned()))
                }
                "vae" => Stored::open(&folder, DIFFUSERS_STEM, variant, vae::modern_name),
                _ if self.family().qwen_components().is_some() => {
                    Stored::open(&folder, TRANSFORMERS_STEM, variant, qwen3::modern_name)
                }
                "text_encoder_3" => {
                    let stored = Stored::open(&folder, TRANSFORMERS_STEM, variant, t5::modern_name)?;
                    Ok(stored.with_one_of(t5::EMBEDDINGS, t5::TWIN))
                }
                _ => Stored::open(&folder, TRANSFORMERS_STEM, variant, clip_text::modern_name),
            },
        }
    }

    pub(super) fn tokenizer(&self, component: &str) -> TokenizerFiles {
        self.part(component).tokenizer(&self.path.join(component))
    }

    /// The `config.json` of a network.
    pub(super) fn config(&self, component: &str) -> Config {
        self.part(component).config(&self.path.join(component), "config.json")
    }

    pub(super) fn scheduler_config(&self) -> Config {
        self.part("scheduler").config(&self.path.join("scheduler"), "scheduler_config.json")
    }

    pub(super) fn index_path(&self) -> &Path {
        self.index_config.path()
    }

    /// Where a component lies; one that is not listed would lie in a folder of its name.
    fn part(&self, component: &str) -> Part {
        self.parts.get(component).cloned().unwrap_or_else(|| Part::Folder(self.path.join(component)))
    }
}
