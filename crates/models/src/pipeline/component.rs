//! One component of a model folder: its `config.json` and its tensors, whatever files hold them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tastemaker_store::safetensors::{Dtype, TensorView};
use tastemaker_store::weights::{Weights as FileWeights, open_component_with};
use tastemaker_store::{StoreError, json};
use tastemaker_torch::mapped::{self, Mapped};
use tch::{Kind, Tensor};

use super::load::Loaded;
use crate::ModelError;
use crate::names::{ends_with, renamed};
use crate::nn::{LoraSpec, Ranks, Scope, TensorSource, Weights, WeightsReport};

/// Reads a JSON file that describes a component.
pub(super) fn read_config<C>(path: &Path, parse: fn(&Value) -> Result<C, String>) -> Result<C, ModelError> {
    let value: Value = json::read(path)?;
    parse(&value).map_err(|problems| ModelError::Config { path: path.to_owned(), problems })
}

/// The tensors of a component in its files, under today's names. They are read when they are asked for.
pub struct Stored {
    path: PathBuf,
    weights: FileWeights,
    maps: Vec<Mapped>,
    /// Our name to the stored one.
    names: BTreeMap<String, String>,
}

impl Stored {
    /// Opens the weights of a component's folder. `modern` gives the name of today for a stored one, or `None` for what is
    /// not a weight.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or malformed, and for tensors that are no floating-point numbers.
    pub fn open(
        folder: &Path,
        stem: &str,
        modern: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ModelError> {
        if !folder.is_dir() {
            return Err(missing(folder, "the folder of a model's component").into());
        }
        let maps = RefCell::new(Vec::new());
        let weights = open_component_with(folder, stem, |path| {
            let (file, map) = mapped::open(path)?;
            maps.borrow_mut().push(map);
            Ok(file)
        })?;
        let path = match weights.files() {
            [file] => file.path().to_owned(),
            _ => folder.to_owned(),
        };
        let views: Vec<_> = weights.tensors().collect();
        let names = renamed(views.iter().map(|view| view.name), modern);
        for view in names.values().filter_map(|name| weights.get(name)) {
            if weight_kind(view.dtype).is_none() {
                let found = format!("tensor `{}` of type {}", view.name, view.dtype);
                return Err(StoreError::malformed(&path, found, "weights of type F32, F16 or BF16").into());
            }
        }
        Ok(Self { path, weights, maps: maps.into_inner(), names })
    }

    /// The file, or the folder of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor of the files, under its stored name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.weights.tensors()
    }

    /// A tensor as it lies in the file, by our name.
    pub fn view(&self, name: &str) -> Option<TensorView<'_>> {
        self.weights.get(self.names.get(name)?)
    }
}

impl TensorSource for Stored {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn read(&self, name: &str) -> Option<Tensor> {
        let view = self.view(name)?;
        let shape: Vec<i64> = view.shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::from_data_size(view.bytes, &shape, weight_kind(view.dtype)?);
        self.maps.iter().for_each(|map| map.release(view.bytes));
        Some(tensor)
    }
}

/// The element types of weights.
fn weight_kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        _ => return None,
    })
}

pub(super) fn missing(path: &Path, wanted: &str) -> StoreError {
    StoreError::Missing { path: path.to_owned(), wanted: wanted.to_owned() }
}

/// Builds a network and checks that it took every tensor there was, the adapter's included.
pub(super) fn build<N>(
    weights: Weights,
    lora: Option<LoraSpec>,
    path: PathBuf,
    construct: impl FnOnce(Scope<'_>) -> N,
) -> Result<Loaded<N>, ModelError> {
    let (targets, ranks) =
        lora.as_ref().map(|spec| (spec.target_modules.clone(), spec.ranks.clone())).unzip();
    let factors: BTreeSet<String> = lora
        .as_ref()
        .and_then(|spec| spec.tensors.as_ref())
        .map_or_else(BTreeSet::new, |t| t.keys().cloned().collect());
    let weights = match lora {
        Some(spec) => weights.with_lora(spec),
        None => weights,
    };
    let switch = weights.adapter_switch();
    let network = construct(weights.root());
    let (trainable, parameters) =
        weights.finish().map_err(|report| ModelError::Weights { path: path.clone(), report })?;

    let unused: Vec<_> = factors.into_iter().filter(|name| !parameters.contains_key(name)).collect();
    if !unused.is_empty() {
        return Err(ModelError::Weights {
            path,
            report: WeightsReport { unexpected: unused, ..Default::default() },
        });
    }
    let layers = || parameters.keys().filter_map(|name| name.strip_suffix(".lora_A.weight"));
    let adapted = |target: &String| layers().any(|layer| ends_with(layer, target));
    let idle: Vec<_> = targets.into_iter().flatten().filter(|target| !adapted(target)).collect();
    let idle_patterns = ranks.map_or_else(Vec::new, |ranks: Ranks| ranks.idle(layers()));
    if idle.is_empty() && !idle_patterns.is_empty() {
        let problems = format!("no adapted layer has a name ending in {}", idle_patterns.join(", "));
        return Err(ModelError::Config { path, problems });
    }
    if !idle.is_empty() {
        let problems = format!("no layer that can be adapted has a name ending in {}", idle.join(", "));
        return Err(ModelError::Config { path, problems });
    }
    Ok(Loaded { network, trainable, parameters, switch })
}
