//! A file of weights, mapped into memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tastemaker_torch::mapped::{self, Mapped};
use tastemaker_weights::safetensors::TensorView;
use tastemaker_weights::{WeightFile, Weights};

use super::map::{ComponentMap, Problems};
use crate::ModelError;
use crate::pipeline::in_few_bits;
use crate::quantized::InFewBits;

/// An open `.safetensors` or `.ckpt` file. Its tensors are read when they are asked for.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    path: PathBuf,
    weights: WeightFile,
    map: Mapped,
    /// Names that are spelled another way in the file: the usual name to the one there.
    spelled: BTreeMap<String, String>,
    few_bits: InFewBits,
}

impl OpenFile {
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (weights, map) = mapped::open(path)?;
        let few_bits = in_few_bits(path, &Weights::from_file(weights.clone()))?;
        Ok(Self { path: path.to_owned(), weights, map, spelled: BTreeMap::new(), few_bits })
    }

    /// The same with names that are spelled another way under their usual ones.
    pub fn spelled(mut self, usual: impl Fn(&str) -> Option<String>) -> Self {
        let moved = |name: &str| Some((usual(name)?, name.to_owned()));
        let spelled: BTreeMap<_, _> = self.weights.tensors().filter_map(|view| moved(view.name)).collect();
        // A name whose usual place is taken stays what it is, and is then not known.
        self.spelled = spelled.into_iter().filter(|(usual, _)| self.weights.get(usual).is_none()).collect();
        self
    }

    /// The name that a tensor has in the file.
    pub fn stored_name<'a>(&'a self, usual: &'a str) -> &'a str {
        self.spelled.get(usual).map_or(usual, String::as_str)
    }

    /// The tensor of this usual name, under the name it has in the file.
    pub fn get(&self, usual: &str) -> Option<TensorView<'_>> {
        self.weights.get(self.spelled.get(usual).map_or(usual, String::as_str))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn weights(&self) -> &WeightFile {
        &self.weights
    }

    pub fn map(&self) -> &Mapped {
        &self.map
    }

    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.weights.tensors()
    }

    /// Which of its weights are in few bits.
    pub fn few_bits(&self) -> &InFewBits {
        &self.few_bits
    }

    /// Every usual name, of what stands for itself.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let usual: BTreeMap<&str, &str> =
            self.spelled.iter().map(|(usual, stored)| (stored.as_str(), usual.as_str())).collect();
        let whole = self.tensors().filter(|tensor| !self.few_bits.stands_beside(tensor.name));
        whole.map(move |tensor| usual.get(tensor.name).copied().unwrap_or(tensor.name))
    }

    /// Checks that every tensor of a component is here in its shape.
    pub fn check(&self, map: &ComponentMap) -> Result<(), ModelError> {
        match map.restore(|name| self.get(name)) {
            Ok(_) => Ok(()),
            Err(problems) => Err(self.refuse(&problems)),
        }
    }

    /// Checks that every tensor is one that is asked for, or known not to matter.
    pub fn check_names(&self, is_known: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let unknown = self.names().filter(|name| !is_known(name));
        let unknown: Problems = unknown.map(|name| format!("`{name}` is not known")).collect();
        if unknown.is_empty() { Ok(()) } else { Err(self.refuse(&unknown)) }
    }

    /// What is wrong with the file, at most eight problems in one line.
    pub fn refuse(&self, problems: &Problems) -> ModelError {
        refuse(&self.path, problems)
    }
}

/// At most eight problems of a file in one line.
pub(crate) fn refuse(path: &Path, problems: &Problems) -> ModelError {
    let shown = problems.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if problems.len() > 8 { format!("; ... ({} in all)", problems.len()) } else { String::new() };
    ModelError::Config { path: path.to_owned(), problems: shown + &more }
}
