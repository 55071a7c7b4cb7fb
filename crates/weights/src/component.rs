//! The weights of one component of a model folder, in one file or in shards.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::file::{Kind, WeightFile};
use crate::safetensors::TensorView;
use tastemaker_store::{StoreError, json};

/// The tensors of one component, whatever files they came from.
#[derive(Debug, Clone)]
pub struct Weights {
    files: Vec<WeightFile>,
    /// Tensor name to the file that holds it.
    owner: BTreeMap<String, usize>,
}

impl Weights {
    /// The files, in the order of their names.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.owner.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.owner.is_empty()
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.owner.iter().filter_map(|(name, &file)| self.files[file].get(name))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.files[*self.owner.get(name)?].get(name)
    }

    /// The tensors of one file.
    pub fn from_file(file: impl Into<WeightFile>) -> Self {
        let file = file.into();
        let owner = file.tensors().map(|tensor| (tensor.name.to_owned(), 0)).collect();
        Self { files: vec![file], owner }
    }
}

/// Opens the weights of a component folder: `<stem>.safetensors`, its shards, or the `fp16` variant of
/// either, the full precision first. Where there is none of them, PyTorch's legacy files serve in the same
/// order: `<stem>.bin` and its shards, with `pytorch_model` for the stem `model`.
///
/// `stem` is `diffusion_pytorch_model` for UNets and VAEs, `model` for text encoders.
///
/// # Errors
/// [`StoreError::Missing`] naming every file that would have served; [`StoreError::Malformed`] for a bad
/// file, or an index that disagrees with its shards.
pub fn open_component(dir: impl AsRef<Path>, stem: &str) -> Result<Weights, StoreError> {
    open_component_with(dir, stem, None, |path| WeightFile::open(path))
}

/// [`open_component`] with the caller's way of opening one file, for instance through a memory map. Files of `variant`
/// go before all others.
///
/// # Errors
/// As [`open_component`].
pub fn open_component_with(
    dir: impl AsRef<Path>,
    stem: &str,
    variant: Option<&str>,
    open: impl Fn(&Path) -> Result<WeightFile, StoreError>,
) -> Result<Weights, StoreError> {
    let dir = dir.as_ref();
    let both = |kind| pair(stem, None, kind).into_iter().chain(pair(stem, Some("fp16"), kind));
    let mut candidates: Vec<String> = KINDS.into_iter().flat_map(both).collect();
    if variant.is_some() {
        let chosen = KINDS.into_iter().flat_map(|kind| pair(stem, variant, kind));
        candidates.splice(0..0, chosen);
    }
    let Some(found) = candidates.iter().find(|name| dir.join(name).is_file()) else {
        return Err(StoreError::Missing {
            path: dir.join(&candidates[0]),
            wanted: format!("it or one of {}", candidates[1..].join(", ")),
        });
    };
    let path = dir.join(found);
    if !found.ends_with(".json") {
        return open(&path).map(Weights::from_file);
    }
    let kind = if found.contains(".safetensors.") { Kind::SafeTensors } else { Kind::Legacy };
    open_shards(dir, &path, kind, open)
}

/// Whether a component folder has weights of this variant.
pub fn has_variant(dir: impl AsRef<Path>, stem: &str, variant: &str) -> bool {
    KINDS
        .map(|kind| pair(stem, Some(variant), kind))
        .iter()
        .flatten()
        .any(|name| dir.as_ref().join(name).is_file())
}

/// Safetensors first.
const KINDS: [Kind; 2] = [Kind::SafeTensors, Kind::Legacy];

/// The names of weights in one file, and of the index of weights in shards.
fn pair(stem: &str, variant: Option<&str>, kind: Kind) -> [String; 2] {
    let (stem, ending) = match kind {
        Kind::SafeTensors => (stem, "safetensors"),
        Kind::Legacy if stem == "model" => ("pytorch_model", "bin"),
        Kind::Legacy => (stem, "bin"),
    };
    let dotted = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
    [format!("{stem}{dotted}.{ending}"), format!("{stem}.{ending}.index{dotted}.json")]
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(
    dir: &Path,
    index_path: &Path,
    kind: Kind,
    open: impl Fn(&Path) -> Result<WeightFile, StoreError>,
) -> Result<Weights, StoreError> {
    let index: Index = json::read(index_path)?;
    let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    if let Some(name) = shards.iter().find(|name| !is_plain_name(name)) {
        return Err(StoreError::malformed(
            index_path,
            format!("shard `{name}`"),
            "the plain name of a file in the same folder",
        ));
    }
    // An index of safetensors must not lead to a pickle.
    if let Some(name) = shards.iter().find(|name| Kind::of(Path::new(name)).ok() != Some(kind)) {
        return Err(StoreError::malformed(
            index_path,
            format!("shard `{name}`"),
            "shards with the ending that the index has in its own name",
        ));
    }
    let files = shards.iter().map(|name| open(&dir.join(name))).collect::<Result<Vec<_>, _>>()?;

    let mut owner = BTreeMap::new();
    let mut wrong = Vec::new();
    for (at, (file, shard)) in files.iter().zip(&shards).enumerate() {
        for tensor in file.tensors() {
            if index.weight_map.get(tensor.name).is_some_and(|wanted| wanted == shard) {
                owner.insert(tensor.name.to_owned(), at);
            } else {
                wrong.push(format!("`{}` in {shard} but not listed there", tensor.name));
            }
        }
    }
    let absent = index.weight_map.iter().filter(|(name, _)| !owner.contains_key(*name));
    wrong.extend(absent.map(|(name, shard)| format!("`{name}` listed in {shard} but not there")));
    if wrong.is_empty() {
        Ok(Weights { files, owner })
    } else {
        Err(StoreError::malformed(
            index_path,
            wrong.join(", "),
            "each tensor in exactly the shard the index names",
        ))
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains(['/', '\\'])
}
