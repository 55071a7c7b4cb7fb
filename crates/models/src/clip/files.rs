//! Which files hold a CLIP, and loading them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tastemaker_store::dtype::DType;
use tastemaker_store::{StoreError, json};
use tch::{Device, Tensor};

use super::config::ClipConfig;
use super::keys::{LOGIT_SCALE, TRANSFORMERS, modern_name, open_clip};
use super::model::Clip;
use crate::ModelError;
use crate::nn::{Role, TensorSource};
use crate::original::{ComponentMap, OpenFile, published_tokenizer, shapes};
use crate::pipeline::{Build, Fingerprint, Stored, TRANSFORMERS_STEM, build, missing};
use crate::tokenizer::{ClipTokenizer, TokenizerFiles};

/// The configuration beside weights under OpenCLIP's names.
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

/// Weights under OpenCLIP's names in a folder.
const OPEN_CLIP_WEIGHTS: [&str; 2] = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];

/// The files of a CLIP. Opening them reads the configuration; weights are read when they are asked for.
#[derive(Debug, Clone)]
pub struct ClipFiles {
    weights: PathBuf,
    layout: Layout,
    config: ClipConfig,
    tokenizer: TokenizerFiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A folder with `config.json` and weights.
    Transformers,
    /// One file.
    OpenClip,
}

impl ClipFiles {
    /// Opens a transformers folder, a folder with `open_clip_config.json`, or one file under OpenCLIP's names.
    ///
    /// A file is a ViT-H-14 unless `open_clip_config.json` beside it says otherwise. A tokenizer that is not there is CLIP's.
    ///
    /// # Errors
    /// [`ModelError::Store`] for what is missing or malformed, [`ModelError::Config`] for a configuration that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        if path.is_dir() {
            let config = path.join("config.json");
            if config.is_file() {
                return Ok(Self {
                    weights: path.to_owned(),
                    layout: Layout::Transformers,
                    config: read(&config, ClipConfig::from_json)?,
                    tokenizer: tokenizer_in(path),
                });
            }
            let found = OPEN_CLIP_WEIGHTS.iter().map(|name| path.join(name)).find(|file| file.is_file());
            return match found {
                Some(file) => Self::file(&file),
                None => {
                    let wanted = format!("it with weights beside it, or {}", OPEN_CLIP_WEIGHTS.join(" or "));
                    Err(missing(&config, &wanted).into())
                }
            };
        }
        if !path.is_file() {
            return Err(missing(path, "the folder or the file of a CLIP").into());
        }
        Self::file(path)
    }

    fn file(path: &Path) -> Result<Self, ModelError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let config = folder.join(OPEN_CLIP_CONFIG);
        Ok(Self {
            weights: path.to_owned(),
            layout: Layout::OpenClip,
            config: match config.is_file() {
                true => read(&config, ClipConfig::from_open_clip)?,
                false => ClipConfig::vit_h_14(),
            },
            tokenizer: tokenizer_in(folder),
        })
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        &self.weights
    }

    /// The configuration of both towers.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Both towers, frozen, and the tokenizer.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or damaged, [`ModelError::Weights`] or [`ModelError::Config`] naming
    /// every tensor that does not fit, [`ModelError::Tokenizer`].
    pub fn load(&self, precision: DType, device: Device) -> Result<(Clip, ClipTokenizer), ModelError> {
        let tokenizer = ClipTokenizer::from_files(&self.tokenizer)?;
        let ClipConfig { text, .. } = &self.config;
        let fits = tokenizer.n_ids() as i64 <= text.vocab_size
            && tokenizer.max_length() as i64 <= text.max_position_embeddings;
        if !fits {
            let message = format!(
                "it makes prompts of {} tokens with ids up to {}; the network takes {} with ids up to {}",
                tokenizer.max_length(),
                tokenizer.n_ids() - 1,
                text.max_position_embeddings,
                text.vocab_size - 1
            );
            return Err(ModelError::Tokenizer { path: self.tokenizer.root().to_owned(), message });
        }
        let how = Build { role: Role::Frozen, precision, device, lora: None, base: None };
        let loaded = build(self.stored()?, how, |scope| Clip::new(scope, &self.config, precision))?;
        Ok((loaded.network, tokenizer))
    }

    /// What cosines are multiplied by: the exponential of the stored logarithm.
    ///
    /// # Errors
    /// As [`ClipFiles::load`].
    pub fn scale(&self) -> Result<f64, ModelError> {
        let stored = self.stored()?;
        let scale = stored.read(LOGIT_SCALE).filter(|scale| scale.numel() == 1);
        let found = || StoreError::malformed(stored.path(), format!("no number `{LOGIT_SCALE}`"), "a CLIP");
        scale.map(|scale: Tensor| scale.double_value(&[]).exp()).ok_or_else(|| found().into())
    }

    /// SHA-256 over tokenizer, configuration and weights, hexadecimal.
    ///
    /// # Errors
    /// As [`ClipFiles::load`].
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Fingerprint::default();
        hash.tokenizer(&self.tokenizer)?;
        hash.bytes(format!("{:?}", self.config).as_bytes());
        hash.tensors(&self.stored()?);
        Ok(hash.finish())
    }

    fn stored(&self) -> Result<Stored, ModelError> {
        if self.layout == Layout::Transformers {
            return Stored::open(&self.weights, TRANSFORMERS_STEM, None, modern_name);
        }
        let file = OpenFile::open(&self.weights)?;
        if file.names().any(|name| TRANSFORMERS.iter().any(|prefix| name.starts_with(prefix))) {
            let wanted =
                "weights under OpenCLIP's names; for these, give the folder with config.json beside them";
            return Err(
                StoreError::malformed(file.path(), "weights under transformers' names", wanted).into()
            );
        }
        let shapes = shapes(|scope| drop(Clip::new(scope, &self.config, DType::F32)));
        let map = ComponentMap::new(shapes, open_clip).map_err(|problems| file.refuse(&problems))?;
        file.check(&map)?;
        let known: BTreeSet<&str> = map.stored_names().collect();
        file.check_names(|name| known.contains(name))?;
        Stored::held(&file, &map)
    }
}

fn read(
    path: &Path,
    parse: fn(&serde_json::Value) -> Result<ClipConfig, String>,
) -> Result<ClipConfig, ModelError> {
    parse(&json::read(path)?).map_err(|problems| ModelError::Config { path: path.to_owned(), problems })
}

/// The tokenizer of a folder, or CLIP's where the folder has none.
fn tokenizer_in(folder: &Path) -> TokenizerFiles {
    let files = TokenizerFiles::in_folder(folder);
    let is_there =
        files.has("tokenizer_config.json") && (files.has("vocab.json") || files.has("tokenizer.json"));
    if is_there { files } else { published_tokenizer(folder) }
}
