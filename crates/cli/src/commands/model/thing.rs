//! What a path turns out to hold.

use std::path::Path;

use anyhow::Result;
use tastemaker_models::adapters::{LoraFile, LoraNames};
use tastemaker_models::original::{Layout, SingleFile};
use tastemaker_models::pipeline::ModelFolder;
use tastemaker_store::safetensors::Header;

/// A model or an adapter, in one of the layouts that are read.
#[derive(Debug)]
pub enum Thing {
    /// A diffusers folder.
    Folder(ModelFolder),
    /// A single-file checkpoint.
    SingleFile(SingleFile),
    /// An adapter; the layout is `None` for one of no published UNet.
    Lora {
        /// What it holds.
        file: LoraFile,
        /// How it names its tensors.
        names: LoraNames,
        /// The family it belongs to.
        layout: Option<Layout>,
    },
}

impl Thing {
    /// Opens whatever is there.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(ModelFolder::open(path)?));
        }
        let has_header = path.extension().is_none_or(|extension| extension == "safetensors");
        if has_header && LoraNames::of(&Header::read(path)?).is_some() {
            let (file, names, layout) = LoraFile::open(path)?;
            return Ok(Self::Lora { file, names, layout });
        }
        Ok(Self::SingleFile(SingleFile::open(path)?))
    }

    /// In words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Folder(_) => "a diffusers folder",
            Self::SingleFile(_) => "a single-file checkpoint",
            Self::Lora { names: LoraNames::Diffusers, .. } => "a LoRA as diffusers names it",
            Self::Lora { names: LoraNames::Kohya, .. } => "a LoRA as kohya's scripts name it",
        }
    }
}
