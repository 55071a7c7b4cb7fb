//! A file of weights of either kind.

use std::path::Path;

use crate::pickle::LegacyFile;
use crate::safetensors::{Bytes, SafeTensorsFile, TensorView};
use tastemaker_store::StoreError;

/// A file of weights; its ending tells the kind.
#[derive(Debug, Clone)]
pub enum WeightFile {
    /// `.safetensors`
    SafeTensors(SafeTensorsFile),
    /// `.bin`, `.pt`, `.pth` or `.ckpt`
    Legacy(LegacyFile),
}

impl WeightFile {
    /// Reads a file into memory and checks it.
    ///
    /// # Errors
    /// Those of [`SafeTensorsFile::open`] and [`LegacyFile::open`]; [`StoreError::Malformed`] for another
    /// ending.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match Kind::of(path)? {
            Kind::SafeTensors => SafeTensorsFile::open(path).map(Self::SafeTensors),
            Kind::Legacy => LegacyFile::open(path).map(Self::Legacy),
        }
    }

    /// Checks bytes that are at hand already, for instance through a memory map.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn over(path: impl AsRef<Path>, bytes: Bytes) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match Kind::of(path)? {
            Kind::SafeTensors => SafeTensorsFile::over(path, bytes).map(Self::SafeTensors),
            Kind::Legacy => LegacyFile::over(path, bytes).map(Self::Legacy),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::SafeTensors(file) => file.path(),
            Self::Legacy(file) => file.path(),
        }
    }

    /// A string of the header; PyTorch's own files have none.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        match self {
            Self::SafeTensors(file) => file.metadata().get(key).map(String::as_str),
            Self::Legacy(_) => None,
        }
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = TensorView<'_>> + '_> {
        match self {
            Self::SafeTensors(file) => Box::new(file.tensors()),
            Self::Legacy(file) => Box::new(file.tensors()),
        }
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        match self {
            Self::SafeTensors(file) => file.get(name),
            Self::Legacy(file) => file.get(name),
        }
    }
}

impl From<SafeTensorsFile> for WeightFile {
    fn from(file: SafeTensorsFile) -> Self {
        Self::SafeTensors(file)
    }
}

impl From<LegacyFile> for WeightFile {
    fn from(file: LegacyFile) -> Self {
        Self::Legacy(file)
    }
}

/// The kinds of weight files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SafeTensors,
    Legacy,
}

impl Kind {
    /// What a file's ending says.
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending {
            "safetensors" => Ok(Self::SafeTensors),
            "bin" | "pt" | "pth" | "ckpt" => Ok(Self::Legacy),
            _ => Err(StoreError::malformed(
                path,
                format!("the ending `{ending}`"),
                "weights in .safetensors, or in PyTorch's .bin, .pt, .pth or .ckpt",
            )),
        }
    }
}
