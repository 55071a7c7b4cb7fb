//! A tokenizer's files: those of a folder, or texts at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tastemaker_store::{StoreError, json};

use crate::ModelError;

/// Files that decide what a tokenizer does.
const TOKENIZER: [&str; 6] = [
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Where the files of a tokenizer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFiles {
    root: PathBuf,
    texts: Option<BTreeMap<String, String>>,
}

impl TokenizerFiles {
    /// In this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { root: folder.into(), texts: None }
    }

    /// At hand, by name; `root` is for errors.
    pub fn at_hand(root: impl Into<PathBuf>, texts: BTreeMap<String, String>) -> Self {
        Self { root: root.into(), texts: Some(texts) }
    }

    /// The folder, or what stands for it in errors.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.texts {
            Some(texts) => texts.contains_key(name),
            None => self.path(name).exists(),
        }
    }

    /// The files that decide what the tokenizer does, as far as they are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &'static str> {
        TOKENIZER.into_iter().filter(|name| self.has(name))
    }

    pub(crate) fn text(&self, name: &str) -> Result<String, StoreError> {
        let Some(texts) = &self.texts else { return json::read_text(self.path(name)) };
        texts.get(name).cloned().ok_or_else(|| StoreError::Missing {
            path: self.path(name),
            wanted: "a file of a tokenizer".to_owned(),
        })
    }

    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        if self.texts.is_none() {
            return json::read(self.path(name));
        }
        serde_json::from_str(&self.text(name)?)
            .map_err(|source| StoreError::Json { path: self.path(name), source })
    }
}

/// The error for a file that says what it must not.
pub(super) fn fault(path: &Path, message: impl Into<String>) -> ModelError {
    ModelError::Tokenizer { path: path.to_owned(), message: message.into() }
}
