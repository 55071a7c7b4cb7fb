//! One component of a model folder: its `config.json` and its tensors, whatever files hold them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tastemaker_store::safetensors::{Dtype, TensorView};
use tastemaker_store::weights::open_component;
use tastemaker_store::{StoreError, json};
use tastemaker_torch::TorchError;
use tastemaker_torch::tensors::Named;
use tch::{Kind, Tensor};

use super::load::Loaded;
use crate::ModelError;
use crate::nn::{LoraSpec, Scope, Weights, WeightsReport};

/// Reads a JSON file that describes a component.
pub(super) fn read_config<C>(path: &Path, parse: fn(&Value) -> Result<C, String>) -> Result<C, ModelError> {
    let value: Value = json::read(path)?;
    parse(&value).map_err(|problems| ModelError::Config { path: path.to_owned(), problems })
}

/// The tensors of a component on the host, and the file (or the folder of shards) they came from.
pub(super) fn read_tensors(
    folder: &Path,
    stem: &str,
    rename: fn(Named) -> Named,
) -> Result<(PathBuf, Named), ModelError> {
    if !folder.is_dir() {
        return Err(missing(folder, "the folder of a model's component").into());
    }
    let weights = open_component(folder, stem)?;
    let path = match weights.files() {
        [file] => file.path().to_owned(),
        _ => folder.to_owned(),
    };
    let tensors = weights.tensors().map(|view| Ok((view.name.to_owned(), tensor(&path, &view)?)));
    let tensors = rename(tensors.collect::<Result<_, ModelError>>()?);
    if let Some((name, tensor)) = tensors.iter().find(|(_, tensor)| !tensor.is_floating_point()) {
        let found = format!("tensor `{name}` of type {:?}", tensor.kind());
        return Err(StoreError::malformed(&path, found, "weights of type F32, F16 or BF16").into());
    }
    Ok((path, tensors))
}

pub(super) fn missing(path: &Path, wanted: &str) -> StoreError {
    StoreError::Missing { path: path.to_owned(), wanted: wanted.to_owned() }
}

/// The types of weights, and of the position ids that old text encoders carry.
fn tensor(path: &Path, view: &TensorView<'_>) -> Result<Tensor, ModelError> {
    let kind = match view.dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        other => {
            let found = format!("tensor `{}` of type {other}", view.name);
            return Err(StoreError::malformed(path, found, "weights of type F32, F16 or BF16").into());
        }
    };
    let shape: Vec<i64> = view.shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(view.bytes, &shape, kind).map_err(TorchError::from)?)
}

/// Applies a map of names; a name whose new place is taken stays, to be reported as unexpected.
pub(super) fn renamed(tensors: Named, modern: fn(&str) -> String) -> Named {
    let new_name = |name: &String| {
        let new = modern(name);
        if tensors.contains_key(&new) { name.clone() } else { new }
    };
    tensors.iter().map(|(name, tensor)| (new_name(name), tensor.shallow_clone())).collect()
}

/// Builds a network and checks that it took every tensor there was, the adapter's included.
pub(super) fn build<N>(
    weights: Weights,
    lora: Option<LoraSpec>,
    path: PathBuf,
    construct: impl FnOnce(Scope<'_>) -> N,
) -> Result<Loaded<N>, ModelError> {
    let targets = lora.as_ref().map_or_else(Vec::new, |spec| spec.target_modules.clone());
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
    let ends_with = |layer: &str, target: &str| {
        layer.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let layers: Vec<_> = parameters.keys().filter_map(|name| name.strip_suffix(".lora_A.weight")).collect();
    let adapted = |target: &String| layers.iter().any(|layer| ends_with(layer, target));
    let idle: Vec<_> = targets.into_iter().filter(|target| !adapted(target)).collect();
    if !idle.is_empty() {
        let problems = format!("no layer that can be adapted has a name ending in {}", idle.join(", "));
        return Err(ModelError::Config { path, problems });
    }
    Ok(Loaded { network, trainable, parameters, switch })
}
