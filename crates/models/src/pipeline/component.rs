//! The tensors of one component of a model, whatever files hold them, and the network built from them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tastemaker_store::StoreError;
use tastemaker_store::dtype::{BasePrecision, DType};
use tastemaker_torch::mapped::{self, Mapped};
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::{self, Named, Raw};
use tastemaker_weights::safetensors::Dtype;
use tastemaker_weights::{Weights as FileWeights, check_finite, open_component_with};
use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::names::{ends_with, renamed};
use crate::nn::{
    AdapterSwitch, LoraSpec, Ranks, Role, Scope, TensorSource, Trainable, Weights, WeightsReport,
};
use crate::original::{ComponentMap, OpenFile, shapes};
use crate::place::{Change, Moved, Place, Shapes, restore};
use crate::quantized::{ABOUT_FILE, InFewBits};

/// The tensors of a component, under today's names, in whatever files and layout. They are read when they are asked for.
pub struct Stored {
    path: PathBuf,
    weights: FileWeights,
    maps: Vec<Mapped>,
    /// Our name to where the tensor lies.
    places: BTreeMap<String, Lies>,
    few_bits: InFewBits,
}

/// Where a tensor lies in its file.
struct Lies {
    /// Its name there.
    name: String,
    /// Our shape, and how the stored form differs; `None` where it is stored as it is.
    form: Option<(Vec<usize>, Change)>,
}

impl Stored {
    /// Opens the weights of a component's folder, those of `variant` before others. `modern` gives the name of today for a
    /// stored one, or `None` for what is not a weight.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or malformed, and for tensors that are no floating-point numbers.
    pub fn open(
        folder: &Path,
        stem: &str,
        variant: Option<&str>,
        modern: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ModelError> {
        if !folder.is_dir() {
            return Err(missing(folder, "the folder of a model's component").into());
        }
        let maps = RefCell::new(Vec::new());
        let weights = open_component_with(folder, stem, variant, |path| {
            let (file, map) = mapped::open(path)?;
            maps.borrow_mut().push(map);
            Ok(file)
        })?;
        let path = match weights.files() {
            [file] => file.path().to_owned(),
            _ => folder.to_owned(),
        };
        let few_bits = in_few_bits(&path, &weights)?;
        let names = weights.tensors().map(|view| view.name).filter(|name| !few_bits.stands_beside(name));
        let names = renamed(names.collect::<Vec<_>>().into_iter(), modern);
        let places = names.into_iter().map(|(ours, name)| (ours, Lies { name, form: None })).collect();
        Self { path, weights, maps: maps.into_inner(), places, few_bits }.checked()
    }

    /// The part of a file that a component's map names.
    ///
    /// # Errors
    /// [`ModelError::Store`] for tensors that are no floating-point numbers.
    pub(crate) fn held(file: &OpenFile, map: &ComponentMap) -> Result<Self, ModelError> {
        let lies = |shape: &[usize], place: &Place| Lies {
            name: file.stored_name(&place.name).to_owned(),
            form: Some((shape.to_vec(), place.change)),
        };
        let weights = FileWeights::from_file(file.weights().clone());
        Self {
            path: file.path().to_owned(),
            few_bits: file.few_bits().clone(),
            weights,
            maps: vec![file.map().clone()],
            places: map.entries().map(|(ours, shape, place)| (ours.to_owned(), lies(shape, place))).collect(),
        }
        .checked()
    }

    /// With the tensor that some files hold under a second name under `name` alone.
    pub(super) fn with_one_of(mut self, name: &str, twin: &str) -> Self {
        if let Some(lies) = self.places.remove(twin) {
            self.places.entry(name.to_owned()).or_insert(lies);
        }
        self
    }

    /// Without the tensors of which this is said by their names.
    pub(super) fn without(mut self, is_left_out: impl Fn(&str) -> bool) -> Self {
        self.places.retain(|name, _| !is_left_out(name));
        self
    }

    fn checked(self) -> Result<Self, ModelError> {
        for view in self.places.values().filter_map(|lies| self.weights.get(&lies.name)) {
            if weight_kind(view.dtype).is_none() && !self.few_bits.holds(view.name) {
                let found = format!("tensor `{}` of type {}", view.name, view.dtype);
                return Err(
                    StoreError::malformed(&self.path, found, "weights of type F32, F16 or BF16").into()
                );
            }
        }
        Ok(self)
    }

    /// The file, or the folder of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor, under our name and in our shape, its bytes as they lie on disk wherever that is the same.
    pub fn tensors(&self) -> impl Iterator<Item = Moved<'_>> {
        self.places.keys().filter_map(|name| self.tensor(name))
    }

    /// Shows every tensor, one at a time, and keeps none of them in memory.
    pub(crate) fn each(&self, mut show: impl FnMut(&Moved<'_>)) {
        for tensor in self.tensors() {
            show(&tensor);
            self.maps.iter().for_each(|map| map.release(&tensor.bytes));
        }
    }

    /// Checks that every number is finite, one tensor at a time.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] naming the first tensor that holds anything else.
    pub(super) fn check_finite(&self) -> Result<(), StoreError> {
        let mut found = Ok(());
        self.each(|tensor| {
            if found.is_ok() {
                found = check_finite(&self.path, &tensor.view());
            }
        });
        found
    }

    /// A tensor as it lies on disk; of few bits, in bfloat16.
    fn tensor(&self, name: &str) -> Option<Moved<'_>> {
        let lies = self.places.get(name)?;
        let view = self.weights.get(&lies.name)?;
        if self.few_bits.holds(&lies.name) {
            let wide = self.unpacked(name)?.to_kind(Kind::BFloat16);
            let [raw] =
                tensors::raw(&self.path, &Named::from([(name.to_owned(), wide)])).ok()?.try_into().ok()?;
            let Raw { name, dtype, shape, bytes } = raw;
            return Some(Moved { name, dtype, shape, bytes: Cow::Owned(bytes) });
        }
        match &lies.form {
            Some((shape, change)) => restore(name, shape, *change, &view).ok(),
            None => Some(Moved {
                name: name.to_owned(),
                dtype: view.dtype,
                shape: view.shape.to_vec(),
                bytes: Cow::Borrowed(view.bytes),
            }),
        }
    }

    /// A weight in few bits, under our name and as it is held, a matrix; `None` for any other tensor.
    fn quantized(&self, name: &str) -> Option<Result<Quantized, String>> {
        let lies = self.places.get(name)?;
        let view = self.weights.get(&lies.name).filter(|view| self.few_bits.holds(view.name))?;
        let part = match lies.form {
            Some((_, Change::Rows { part, of })) => (part as i64, of as i64),
            // A frozen layer of those that lie so is none of the large ones.
            Some((_, Change::Transposed)) => return None,
            _ => (0, 1),
        };
        let found = self.few_bits.matrix(&view, |name| self.weights.get(name), part);
        self.maps.iter().for_each(|map| map.release(view.bytes));
        Some(found.map_err(|problem| format!("`{}`: {problem}", view.name)))
    }

    /// What a tensor in few bits stands for, f32, under our name and in our shape.
    fn unpacked(&self, name: &str) -> Option<Tensor> {
        let lies = self.places.get(name)?;
        let view = self.weights.get(&lies.name)?;
        let sizes = |shape: &[usize]| shape.iter().map(|&n| n as i64).collect::<Vec<_>>();
        let (shape, change) = match &lies.form {
            Some((shape, change)) => (sizes(shape), *change),
            None => (sizes(&self.few_bits.shape(&view)), Change::None),
        };
        if change == Change::Transposed {
            let whole = self.few_bits.matrix(&view, |name| self.weights.get(name), (0, 1)).ok()?;
            return Some(whole.value(Kind::Float).transpose(0, 1).contiguous());
        }
        self.quantized(name)?.ok()?.value(Kind::Float).f_reshape(shape).ok()
    }

    /// Compares with what a network asks for, before anything is read.
    pub(super) fn fit(&self, wanted: &Shapes) -> WeightsReport {
        let sizes = |shape: &[usize]| shape.iter().map(|&n| n as i64).collect::<Vec<_>>();
        let mut report = WeightsReport::default();
        for (name, shape) in wanted {
            let found = self.places.get(name).and_then(|lies| match &lies.form {
                Some((shape, _)) => Some(shape.clone()),
                None => self.weights.get(&lies.name).map(|view| self.few_bits.shape(&view)),
            });
            match found {
                None => report.missing.push(name.clone()),
                Some(found) if found != *shape => {
                    report.misshapen.push((name.clone(), sizes(&found), sizes(shape)));
                }
                Some(_) => {}
            }
        }
        report.unexpected = self.places.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        report
    }
}

impl TensorSource for Stored {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn read(&self, name: &str) -> Option<Tensor> {
        if self.few_bits.holds(&self.places.get(name)?.name) {
            let found = self.unpacked(name)?;
            return self.maps.iter().all(Mapped::is_whole).then_some(found);
        }
        let found = self.tensor(name)?;
        let shape: Vec<i64> = found.shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::from_data_size(&found.bytes, &shape, weight_kind(found.dtype)?);
        self.maps.iter().for_each(|map| map.release(&found.bytes));
        // What was cut off meanwhile read as zeros.
        self.maps.iter().all(Mapped::is_whole).then_some(tensor)
    }

    fn read_quantized(&self, name: &str) -> Option<Result<Quantized, String>> {
        let found = self.quantized(name)?;
        let cut = || format!("{} was cut short meanwhile", self.path.display());
        Some(found.and_then(|found| self.maps.iter().all(Mapped::is_whole).then_some(found).ok_or_else(cut)))
    }
}

/// The weights of few bits among those of a component.
pub(crate) fn in_few_bits(path: &Path, weights: &FileWeights) -> Result<InFewBits, ModelError> {
    let about = weights.files().iter().find_map(|file| file.metadata(ABOUT_FILE));
    let names = weights.tensors().map(|view| view.name);
    InFewBits::of(names, |name| weights.get(name), about)
        .map_err(|problems| ModelError::Config { path: path.to_owned(), problems })
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

pub(crate) fn missing(path: &Path, wanted: &str) -> StoreError {
    StoreError::Missing { path: path.to_owned(), wanted: wanted.to_owned() }
}

/// A network with the tensors it was built from.
#[derive(Debug)]
pub struct Loaded<N> {
    /// The network.
    pub network: N,
    /// The parameters that receive gradients.
    pub trainable: Vec<Trainable>,
    /// Every parameter by its diffusers name; shares storage with the network.
    pub parameters: BTreeMap<String, Tensor>,
    /// Turns the network's adapters off and on.
    pub switch: AdapterSwitch,
}

/// How a network is to be built.
pub(crate) struct Build {
    /// Whether its own parameters train.
    pub role: Role,
    /// Their compute type.
    pub precision: DType,
    /// Where they live.
    pub device: Device,
    /// An adapter, which trains whatever the role.
    pub lora: Option<LoraSpec>,
    /// What the large linear layers of a frozen network are held in, where not in the compute type.
    pub base: Option<BasePrecision>,
}

/// Builds a network and checks that it took every tensor there was, the adapter's included.
///
/// Names and shapes are compared before the first tensor is read, so a configuration that asks for more than there is
/// costs nothing.
pub(crate) fn build<N>(
    stored: Stored,
    how: Build,
    construct: impl Fn(Scope<'_>) -> N,
) -> Result<Loaded<N>, ModelError> {
    let path = stored.path().to_owned();
    let report = stored.fit(&shapes(|scope| drop(construct(scope))));
    if !report.is_clean() {
        return Err(ModelError::Weights { path, report: Box::new(report) });
    }
    let Build { role, precision, device, lora, base } = how;
    let weights = Weights::from_source(stored, role, precision, device).with_base_precision(base);
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
    let (trainable, parameters) = weights
        .finish()
        .map_err(|report| ModelError::Weights { path: path.clone(), report: Box::new(report) })?;

    let unused: Vec<_> = factors.into_iter().filter(|name| !parameters.contains_key(name)).collect();
    if !unused.is_empty() {
        return Err(ModelError::Weights {
            path,
            report: Box::new(WeightsReport { unexpected: unused, ..Default::default() }),
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
