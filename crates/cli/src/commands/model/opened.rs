//! Whatever a name stands for, opened.

use std::path::PathBuf;

use anyhow::Result;
use tastemaker_models::adapters::{LoraFile, LoraNames};
use tastemaker_models::original::Layout;
use tastemaker_models::pipeline::{Model, ModelSources, SingleFile};

use crate::models::{Found, find};

/// A model or an adapter, in one of the layouts that are read.
#[derive(Debug)]
pub enum Opened {
    /// A diffusers folder.
    Folder(Model),
    /// A single-file checkpoint.
    SingleFile(SingleFile),
    /// An adapter; the layout is `None` for one of no published UNet.
    Lora {
        /// Where it is.
        path: PathBuf,
        /// What it holds.
        file: LoraFile,
        /// How it names its tensors.
        names: LoraNames,
        /// The family it belongs to.
        layout: Option<Layout>,
    },
}

impl Opened {
    /// Opens whatever has this name, on this machine or among the fetched models.
    pub fn open(name: &str) -> Result<Self> {
        match find(name, None)? {
            Found::Lora(path, _) => {
                let (file, names, layout) = LoraFile::open(&path)?;
                Ok(Self::Lora { path, file, names, layout })
            }
            Found::Model(path) if path.is_file() => Ok(Self::SingleFile(SingleFile::open(path)?)),
            Found::UNet(unet, Some(base)) => {
                let sources = ModelSources { unet: Some(unet), ..*base };
                Ok(Self::Folder(Model::from_sources(&sources)?))
            }
            Found::Model(path) | Found::UNet(path, None) | Found::Folder(path) => {
                Ok(Self::Folder(Model::open(path)?))
            }
        }
    }

    /// In words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Folder(_) => "a diffusers folder",
            Self::SingleFile(_) => "a single-file checkpoint",
            Self::Lora { names: LoraNames::Diffusers, .. } => "a LoRA in diffusers format",
            Self::Lora { names: LoraNames::Kohya, .. } => "a LoRA in kohya format",
        }
    }
}
