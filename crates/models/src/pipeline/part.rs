//! Where the parts of a model lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tastemaker_store::{StoreError, atomic, json};

use crate::ModelError;
use crate::original::{ComponentMap, OpenFile};
use crate::tokenizer::TokenizerFiles;

/// A network of a file: its tensors, under our names.
pub(super) struct HeldNetwork {
    pub component: &'static str,
    pub file: Arc<OpenFile>,
    pub map: ComponentMap,
}

/// One component of a model.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// In a folder of its own.
    Folder(PathBuf),
    /// A network in a file that holds others too, and the configuration it is built by.
    Held {
        /// The file.
        file: Arc<OpenFile>,
        /// Where its tensors lie there.
        map: Arc<ComponentMap>,
        /// Its configuration.
        config: Config,
    },
    /// Small files at hand, by name.
    Files(BTreeMap<String, String>),
}

impl Part {
    /// A network in a file.
    pub fn held(network: HeldNetwork, config: Config) -> Self {
        Self::Held { file: network.file, map: Arc::new(network.map), config }
    }

    /// The JSON file of this name; `root` stands for a folder that does not exist.
    pub fn config(&self, root: &Path, name: &str) -> Config {
        match self {
            Self::Folder(folder) => Config::File(folder.join(name)),
            Self::Held { config, .. } => config.clone(),
            Self::Files(files) => {
                let text = files.get(name).cloned().unwrap_or_default();
                Config::AtHand { path: root.join(name), text }
            }
        }
    }

    /// The files of a tokenizer; `root` stands for a folder that does not exist.
    pub fn tokenizer(&self, root: &Path) -> TokenizerFiles {
        match self {
            Self::Folder(folder) => TokenizerFiles::in_folder(folder),
            Self::Held { .. } => TokenizerFiles::at_hand(root, BTreeMap::new()),
            Self::Files(files) => TokenizerFiles::at_hand(root, files.clone()),
        }
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.is_dir(),
            Self::Held { .. } | Self::Files(_) => true,
        }
    }
}

/// A JSON file, or its text.
#[derive(Debug, Clone)]
pub(super) enum Config {
    /// On disk.
    File(PathBuf),
    /// At hand; the path is for errors.
    AtHand {
        /// What stands for a path.
        path: PathBuf,
        /// The JSON.
        text: String,
    },
}

impl Config {
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::AtHand { path, .. } => path,
        }
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        match self {
            Self::File(path) => path.is_file(),
            Self::AtHand { .. } => true,
        }
    }

    pub fn value(&self) -> Result<Value, StoreError> {
        match self {
            Self::File(path) => json::read(path),
            Self::AtHand { path, text } => {
                serde_json::from_str(text).map_err(|source| StoreError::Json { path: path.clone(), source })
            }
        }
    }

    /// Reads what describes a component.
    pub fn read<C>(&self, parse: impl FnOnce(&Value) -> Result<C, String>) -> Result<C, ModelError> {
        parse(&self.value()?)
            .map_err(|problems| ModelError::Config { path: self.path().to_owned(), problems })
    }

    /// Writes it, byte for byte.
    pub fn write(&self, to: &Path) -> Result<(), StoreError> {
        match self {
            Self::File(path) => copy_file(path, to),
            Self::AtHand { text, .. } => atomic::write_bytes(to, text.as_bytes()),
        }
    }
}

pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|error| StoreError::io("read", from, error))?;
    atomic::write(to, |out| io::copy(&mut source, out).map(drop))
}
