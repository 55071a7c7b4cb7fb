//! Which files make up a model, and opening them.

use std::path::{Path, PathBuf};

use tastemaker_math::schedule::Prediction;
use tastemaker_store::StoreError;
use tastemaker_weights::has_variant;

use super::component::missing;
use super::index::{Family, ModelIndex};
use super::model::Model;
use super::part::{Config, Part};
use super::single_file::{SingleFile, vae_in_file};
use super::text::QWEN_LENGTH;
use super::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::ModelError;
use crate::original::{Layout, Preset, spelled};

/// Which files make up a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelSources {
    /// A folder in diffusers layout, or a single-file checkpoint.
    pub model: PathBuf,
    /// Where a single file's configurations, tokenizers and schedule come from: a folder in diffusers layout, which needs no
    /// weights. Without it, they are those of the published models.
    pub config: Option<PathBuf>,
    /// Another VAE: its folder, a folder with `vae/`, or a file under original names.
    pub vae: Option<PathBuf>,
    /// Another network that predicts: its folder, or a folder with `unet/` or `transformer/`.
    pub unet: Option<PathBuf>,
    /// Which weights to take where a folder has several, such as `fp16`.
    pub variant: Option<String>,
    /// What the UNet predicts, where the model is wrong or silent about it.
    pub prediction: Option<Prediction>,
    /// Whether noise levels end in pure noise, where the model's configuration does not say so.
    pub zero_terminal_snr: bool,
    /// Shift of a flow model's noise levels, in place of the configuration's.
    pub shift: Option<f64>,
    /// Longest prompts in tokens, a multiple of 75; longer than 75 they are encoded in chunks. 75 where nothing is said.
    pub max_token_length: Option<u32>,
}

/// Tokens of a chunk, as the setting counts them, whatever a tokenizer makes.
const CHUNK: u32 = 75;

impl ModelSources {
    /// A model as it is.
    pub fn of(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }
}

impl Model {
    /// The same with another length of prompts in tokens, a multiple of 75; `None` leaves it.
    #[must_use]
    pub fn with_max_token_length(mut self, length: Option<u32>) -> Self {
        if let Some(length) = length {
            self.n_chunks = (length / CHUNK).max(1) as usize;
        }
        self
    }

    /// Longest prompts in tokens, as the setting counts them.
    pub fn max_token_length(&self) -> u32 {
        CHUNK * self.n_chunks as u32
    }

    /// Only CLIP's encoders take prompts in chunks.
    pub(super) fn check_token_length(&self) -> Result<(), ModelError> {
        if self.n_chunks == 1 || self.family().qwen_components().is_none() {
            return Ok(());
        }
        Err(ModelError::Choice(format!(
            "max_token_length is {}; {} has no chunks of {CHUNK} tokens and reads {QWEN_LENGTH} in one: leave it out",
            self.max_token_length(),
            self.path.display(),
        )))
    }

    /// Opens a model as it is; see [`Model::from_sources`].
    ///
    /// # Errors
    /// As [`Model::from_sources`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::from_sources(&ModelSources::of(path.as_ref()))
    }

    /// Reads `model_index.json` or the names in a single file, puts other parts in their places, and checks that the
    /// components whose configurations are there fit each other.
    ///
    /// # Errors
    /// [`ModelError::Store`] if a folder, a file or the index is not there; [`ModelError::Config`] for a model of another
    /// kind, a configuration that is not supported, tensors of a single file that do not fit, and components that do not fit
    /// each other; [`ModelError::UnknownPrediction`]; [`ModelError::Contradiction`];
    /// [`ModelError::Choice`].
    pub fn from_sources(sources: &ModelSources) -> Result<Self, ModelError> {
        let ModelSources { model, config, vae, unet, variant, prediction, zero_terminal_snr, .. } = sources;
        let is_file = model.is_file();
        check_choices(sources, is_file)?;
        let replaced: Vec<&str> = [("unet", unet), ("transformer", unet), ("vae", vae)]
            .iter()
            .filter_map(|(name, path)| path.as_ref().map(|_| *name))
            .collect();
        let opened = if is_file {
            let file = SingleFile::open(model)?;
            let described = match config {
                Some(folder) => {
                    Self { prediction: *prediction, ..in_folder(folder)?.agreeing(&file, *prediction)? }
                }
                None if file.layout == Layout::ZImage => {
                    let problem = "it holds no tokenizer and not all configurations; add --model_config FOLDER, a folder of Z-Image, \
                                   from which text encoder and VAE come too where the file has none";
                    return Err(file.refuse(problem));
                }
                None => {
                    let stated = file.noise.prediction(model, *prediction)?;
                    let prediction = file.layout.prediction(stated)?;
                    Self::described(&file.preset()?, model, prediction)?
                }
            };
            let zero_terminal_snr = file.noise.zero_terminal_snr.is_some();
            Self { zero_terminal_snr, ..described }.in_file(&file, &replaced)?
        } else {
            let opened = in_folder(model)?;
            if let Some(variant) = variant {
                check_variant(&opened, variant)?;
            }
            Self { prediction: *prediction, variant: variant.clone(), ..opened }
        };
        let mut opened = opened.with_max_token_length(sources.max_token_length);
        opened.check_token_length()?;
        if let Some(path) = unet {
            let backbone = opened.family().backbone();
            opened.parts.insert(backbone.to_owned(), Part::Folder(component_folder(path, backbone)?));
        }
        if let Some(path) = vae {
            let part = match path.is_file() {
                true => Part::held(vae_in_file(path, &opened.vae_config()?)?, opened.config("vae")),
                false => Part::Folder(component_folder(path, "vae")?),
            };
            opened.parts.insert("vae".to_owned(), part);
        }
        opened.zero_terminal_snr |= zero_terminal_snr;
        opened.shift = sources.shift;
        if opened.shift.is_some() {
            opened.schedule()?;
        }
        opened.check_fit()?;
        Ok(opened)
    }

    /// This description of a file, which must not say another prediction than the file does, unless one was `chosen`.
    fn agreeing(self, file: &SingleFile, chosen: Option<Prediction>) -> Result<Self, ModelError> {
        let stated = file.noise.prediction(file.path(), chosen)?;
        let described = self.schedule()?.schedule.prediction();
        match file.noise.predictions.first().filter(|_| chosen.is_none() && stated != Some(described)) {
            None => Ok(self),
            Some(witness) => {
                let config = self.scheduler_config();
                let what = format!("{witness}, {} says {}", config.path().display(), spelled(described));
                Err(ModelError::Contradiction { path: file.path().to_owned(), what })
            }
        }
    }

    /// The model of a single file, `preset` saying what the file skips.
    ///
    /// # Errors
    /// As [`Model::from_sources`].
    pub fn from_file(file: &SingleFile, preset: &Preset, prediction: Prediction) -> Result<Self, ModelError> {
        let described = Self::described(preset, file.path(), prediction)?;
        let zero_terminal_snr = file.noise.zero_terminal_snr.is_some();
        let model = Self { zero_terminal_snr, ..described }.in_file(file, &[])?;
        model.check_fit()?;
        Ok(model)
    }

    /// This model with another network that predicts, in its folder or in a folder with `unet/` or `transformer/`.
    ///
    /// # Errors
    /// As [`Model::from_sources`].
    pub fn with_backbone(&self, folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let mut model = self.clone();
        let backbone = model.family().backbone();
        let folder = component_folder(folder.as_ref(), backbone)?;
        model.parts.insert(backbone.to_owned(), Part::Folder(folder));
        model.check_fit()?;
        Ok(model)
    }

    /// The networks of a file, described by this model's configurations.
    ///
    /// # Errors
    /// As [`Model::from_sources`].
    pub fn with_file(&self, file: &SingleFile) -> Result<Self, ModelError> {
        self.clone().in_file(file, &[])
    }

    /// A model of which everything is known but its weights, which are to come from `path`.
    fn described(preset: &Preset, path: &Path, prediction: Prediction) -> Result<Self, ModelError> {
        let text = preset.config("model_index").to_string();
        let index_config = Config::AtHand { path: path.to_owned(), text };
        let index = index_config.read(ModelIndex::from_json)?;
        let files = |component: &str| match component {
            "tokenizer" | "tokenizer_2" => {
                let texts = preset.tokenizer(component == "tokenizer_2").into_iter();
                texts.map(|(name, text)| (name.to_owned(), text)).collect()
            }
            _ => {
                let name = if component == "scheduler" { "scheduler_config.json" } else { "config.json" };
                [(name.to_owned(), format!("{:#}\n", preset.config(component)))].into()
            }
        };
        let part = |component: &String| (component.clone(), Part::Files(files(component)));
        let parts = index.components.iter().map(part).collect();
        let prediction = Some(prediction);
        let (path, zero_terminal_snr) = (path.to_owned(), false);
        Ok(Self {
            path,
            index,
            index_config,
            parts,
            variant: None,
            prediction,
            zero_terminal_snr,
            shift: None,
            n_chunks: 1,
            base_precision: None,
        })
    }

    /// The same description with the networks of a file, without those that are replaced.
    fn in_file(self, file: &SingleFile, replaced: &[&str]) -> Result<Self, ModelError> {
        if self.family() != Family::from(file.layout) {
            let problems = format!("the configurations are not those of {}", file.layout.title());
            return Err(ModelError::Config { path: file.path().to_owned(), problems });
        }
        let mut model = self;
        for network in file.networks(&model, replaced)? {
            let config = model.config(network.component);
            model.parts.insert(network.component.to_owned(), Part::held(network, config));
        }
        model.path = file.path().to_owned();
        Ok(model)
    }
}

/// A folder in diffusers layout.
fn in_folder(path: &Path) -> Result<Model, ModelError> {
    if !path.is_dir() {
        return Err(missing(path, "a diffusers model folder or a single-file checkpoint").into());
    }
    let index_path = path.join("model_index.json");
    if !index_path.is_file() {
        return Err(missing(&index_path, "the index of a diffusers model folder").into());
    }
    let index_config = Config::File(index_path);
    let index = index_config.read(ModelIndex::from_json)?;
    let part = |name: &String| (name.clone(), Part::Folder(path.join(name)));
    let parts = index.components.iter().map(part).collect();
    let (path, variant, prediction) = (path.to_owned(), None, None);
    let (zero_terminal_snr, n_chunks) = (false, 1);
    Ok(Model {
        path,
        index,
        index_config,
        parts,
        variant,
        prediction,
        zero_terminal_snr,
        n_chunks,
        shift: None,
        base_precision: None,
    })
}

/// The folder of a component: the one given, or the one of its name in it.
fn component_folder(path: &Path, component: &str) -> Result<PathBuf, ModelError> {
    if path.is_file() {
        let wanted =
            format!("a folder with config.json and weights, or one with such a folder `{component}`");
        return Err(StoreError::malformed(path, "a file", wanted).into());
    }
    if !path.is_dir() {
        return Err(missing(path, &format!("the folder of another {component}")).into());
    }
    if path.join("config.json").is_file() {
        return Ok(path.to_owned());
    }
    let inner = path.join(component);
    if inner.join("config.json").is_file() {
        return Ok(inner);
    }
    let wanted = format!("it with weights beside it, or a folder `{component}` with both");
    Err(missing(&path.join("config.json"), &wanted).into())
}

/// What was asked for must mean something for the kind of model that it is asked of.
fn check_choices(sources: &ModelSources, is_file: bool) -> Result<(), ModelError> {
    let model = sources.model.display();
    let plain = |variant: &&String| {
        variant.is_empty() || !variant.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if let Some(variant) = sources.variant.as_ref().filter(plain) {
        let wanted = "a word such as fp16";
        return Err(StoreError::Name { what: "variant", found: variant.clone(), wanted }.into());
    }
    if is_file && sources.variant.is_some() {
        return Err(ModelError::Choice(format!("{model} is a single file, which has no variants")));
    }
    if !is_file && sources.config.is_some() && sources.model.exists() {
        return Err(ModelError::Choice(format!(
            "{model} is a folder with configurations of its own; only a single-file checkpoint takes others"
        )));
    }
    Ok(())
}

/// At least one component has weights of the variant; the others go with what they have.
fn check_variant(model: &Model, variant: &str) -> Result<(), ModelError> {
    let backbone = model.family().backbone();
    let text = model.text_parts().map(|(name, _)| (name, TRANSFORMERS_STEM));
    let mut networks = [(backbone, DIFFUSERS_STEM), ("vae", DIFFUSERS_STEM)].into_iter().chain(text);
    if networks.any(|(name, stem)| has_variant(model.path.join(name), stem, variant)) {
        return Ok(());
    }
    let path = model.path.join(backbone).join(format!("{DIFFUSERS_STEM}.{variant}.safetensors"));
    Err(missing(&path, "weights of this variant in at least one component").into())
}
