//! Where parameters come from, in which precision they live, and which of them are trained.
//!
//! A network's constructor asks a [`Scope`] for each parameter by its diffusers name and shape. Missing, misshapen and
//! unused tensors are collected and reported together by [`Weights::finish`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;

use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_store::dtype::{BasePrecision, DType};
use tastemaker_torch::kind_of;
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

use super::linear::Weight;
use super::lora::{AdapterSwitch, Factors, Lora, LoraSpec};
use super::param::{Param, Trainable};
use crate::names::shown;

/// Whether a network's own parameters receive gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stored in the compute type, without gradient.
    Frozen,
    /// f32 masters with gradient, cast to the compute type where they are used.
    Trained,
}

/// How a parameter starts when there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with standard deviation 1/sqrt(fan in), which keeps the scale of unit inputs (LeCun et al. 1998, "Efficient
    /// BackProp", section 4.6).
    FanIn(i64),
    /// A tenth of [`Init::FanIn`]: the last layer of a residual branch, so that a deep network starts near the identity.
    Closing(i64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// All ones.
    Ones,
    /// All zeros.
    Zeros,
}

/// What did not fit between a checkpoint and a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightsReport {
    /// Parameters the network has and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors the checkpoint has and the network lacks.
    pub unexpected: Vec<String>,
    /// Name, shape found, shape wanted.
    pub misshapen: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Tensors with elements that are NaN or infinite.
    pub not_finite: Vec<String>,
    /// What is wrong with weights of few bits, in words.
    pub unreadable: Vec<String>,
}

impl WeightsReport {
    /// Whether everything fitted.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.misshapen.is_empty()
            && self.not_finite.is_empty()
            && self.unreadable.is_empty()
    }
}

impl Display for WeightsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing: {}", shown(&self.missing, 8)));
        }
        if !self.unexpected.is_empty() {
            parts.push(format!("unexpected: {}", shown(&self.unexpected, 8)));
        }
        if !self.misshapen.is_empty() {
            let names: Vec<_> = self
                .misshapen
                .iter()
                .map(|(name, found, wanted)| format!("{name} is {found:?}, wanted {wanted:?}"))
                .collect();
            parts.push(format!("wrong shape: {}", shown(&names, 8)));
        }
        if !self.not_finite.is_empty() {
            parts.push(format!("NaN or infinite: {}", shown(&self.not_finite, 8)));
        }
        if !self.unreadable.is_empty() {
            parts.push(shown(&self.unreadable, 8));
        }
        f.write_str(&parts.join("; "))
    }
}

/// Tensors by name, read when they are asked for.
pub trait TensorSource {
    /// All names.
    fn names(&self) -> Vec<String>;

    /// The tensor of this name on the host; `None` if there is none.
    fn read(&self, name: &str) -> Option<Tensor>;

    /// The weight of this name as it is held in few bits, on the host, a matrix; `None` where it is not.
    ///
    /// # Errors
    /// What does not fit together, in words.
    fn read_quantized(&self, _name: &str) -> Option<Result<Quantized, String>> {
        None
    }
}

impl TensorSource for Named {
    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn read(&self, name: &str) -> Option<Tensor> {
        self.get(name).map(Tensor::shallow_clone)
    }
}

enum Source {
    Checkpoint(Box<dyn TensorSource>),
    Fresh { seed: u64 },
    Shapes,
}

/// The parameters of one network while it is being built.
pub struct Weights {
    source: Source,
    role: Role,
    compute: Kind,
    device: Device,
    lora: Option<LoraSpec>,
    base: Option<BasePrecision>,
    switch: AdapterSwitch,
    used: RefCell<BTreeSet<String>>,
    report: RefCell<WeightsReport>,
    trainable: RefCell<Vec<Trainable>>,
    parameters: RefCell<BTreeMap<String, Tensor>>,
}

impl Weights {
    /// Parameters read one by one, so that no second copy of a network is in memory while it is built.
    pub fn from_source(
        source: impl TensorSource + 'static,
        role: Role,
        precision: DType,
        device: Device,
    ) -> Self {
        Self::new(Source::Checkpoint(Box::new(source)), role, precision, device)
    }

    /// Parameters drawn afresh: a pure function of `seed` and each parameter's name.
    pub fn fresh(seed: u64, role: Role, precision: DType, device: Device) -> Self {
        Self::new(Source::Fresh { seed }, role, precision, device)
    }

    /// Parameters without memory of their own, each one zero seen through its shape: for asking a network what it is made of.
    ///
    /// Built so, [`Weights::finish`] names every parameter with its shape. Nothing may be computed with them.
    pub fn shapes() -> Self {
        Self::new(Source::Shapes, Role::Frozen, DType::F32, Device::Cpu)
    }

    fn new(source: Source, role: Role, precision: DType, device: Device) -> Self {
        Self {
            source,
            role,
            compute: kind_of(precision),
            device,
            lora: None,
            base: None,
            switch: Rc::new(Cell::new(true)),
            used: RefCell::default(),
            report: RefCell::default(),
            trainable: RefCell::default(),
            parameters: RefCell::default(),
        }
    }

    /// Adds an adapter to every layer the specification targets.
    pub fn with_lora(mut self, spec: LoraSpec) -> Self {
        self.lora = Some(spec);
        self
    }

    /// Holds the frozen weights of large linear layers ([`is_large`]) in few bits. Each is packed as it is read, so that no second copy
    /// of a network is in memory.
    pub fn with_base_precision(mut self, base: Option<BasePrecision>) -> Self {
        self.base = base.filter(|_| self.role == Role::Frozen);
        self
    }

    /// The scope of the whole network.
    pub fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    /// The switch that turns all adapters of this network off and on.
    pub fn adapter_switch(&self) -> AdapterSwitch {
        Rc::clone(&self.switch)
    }

    /// Ends construction: the trainable parameters and all parameters by name, or what did not fit.
    ///
    /// # Errors
    /// A [`WeightsReport`] naming every missing, unexpected and misshapen tensor at once.
    pub fn finish(self) -> Result<(Vec<Trainable>, BTreeMap<String, Tensor>), WeightsReport> {
        let mut report = self.report.into_inner();
        if let Source::Checkpoint(tensors) = &self.source {
            let used = self.used.into_inner();
            report.unexpected = tensors.names().into_iter().filter(|name| !used.contains(name)).collect();
        }
        if report.is_clean() {
            Ok((self.trainable.into_inner(), self.parameters.into_inner()))
        } else {
            Err(report)
        }
    }

    fn initial(&self, seed: u64, name: &str, shape: &[i64], init: Init) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        let normal = |std: f64| {
            let n: i64 = shape.iter().product();
            let mut keyed = Keyed::new(seed, Stream::Init, name_key(name), 0);
            let mut values = vec![0f32; n as usize];
            keyed.fill_normal(&mut values);
            values.iter_mut().for_each(|v| *v *= std as f32);
            Tensor::from_slice(&values).reshape(shape)
        };
        match init {
            Init::FanIn(fan_in) => normal((fan_in as f64).sqrt().recip()),
            Init::Closing(fan_in) => normal(0.1 / (fan_in as f64).sqrt()),
            Init::Normal(std) => normal(std),
            Init::Ones => Tensor::ones(shape, options),
            Init::Zeros => Tensor::zeros(shape, options),
        }
    }

    fn stored(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let Source::Checkpoint(tensors) = &self.source else { return None };
        let Some(tensor) = tensors.read(name) else {
            self.report.borrow_mut().missing.push(name.to_owned());
            return None;
        };
        self.used.borrow_mut().insert(name.to_owned());
        let mut report = self.report.borrow_mut();
        if tensor.size() != shape {
            report.misshapen.push((name.to_owned(), tensor.size(), shape.to_vec()));
            return None;
        }
        if !tensors::is_finite(&tensor) {
            report.not_finite.push(name.to_owned());
            return None;
        }
        Some(tensor)
    }

    /// The weight of this name as the checkpoint holds it, if that is in few bits; nothing where it is faulty, which is noted.
    fn stored_in_few_bits(&self, name: &str, shape: [i64; 2]) -> Option<Option<Quantized>> {
        let Source::Checkpoint(tensors) = &self.source else { return None };
        let found = tensors.read_quantized(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        let mut report = self.report.borrow_mut();
        match found {
            Err(problem) => report.unreadable.push(problem),
            Ok(found) if found.size() != shape => {
                report.misshapen.push((name.to_owned(), found.size().to_vec(), shape.to_vec()));
            }
            Ok(found) if !found.is_finite() => report.not_finite.push(name.to_owned()),
            Ok(found) => return Some(Some(found)),
        }
        Some(None)
    }

    /// A parameter that is not trained, bit for bit what a master of the same start gives in the compute type.
    fn frozen(&self, start: &Tensor, compute: Kind) -> Param {
        let tensor = start.to_device(self.device).to_kind(Kind::Float).to_kind(compute);
        Param { tensor: channels_last(tensor).set_requires_grad(false), compute }
    }

    fn place(&self, name: String, tensor: Tensor, role: Role) -> Param {
        let tensor = match role {
            Role::Frozen => {
                channels_last(tensor.to_device(self.device).to_kind(self.compute)).set_requires_grad(false)
            }
            Role::Trained => {
                let master = tensor.to_device(self.device).to_kind(Kind::Float).copy();
                let master = channels_last(master).set_requires_grad(true);
                self.trainable
                    .borrow_mut()
                    .push(Trainable { name: name.clone(), tensor: master.shallow_clone() });
                master
            }
        };
        self.parameters.borrow_mut().insert(name, tensor.shallow_clone());
        Param { tensor, compute: self.compute }
    }
}

/// Whether a linear layer is one of those that make a denoiser large: those in its transformer blocks but their modulation.
/// What is between the blocks, and what noise levels go through, stays as it is.
///
/// Source: the layers that diffusers, ai-toolkit and musubi-tuner leave out when they quantize.
pub fn is_large(layer: &str) -> bool {
    let mut parts = layer.split('.');
    let is_inside = parts
        .any(|part| part.ends_with("transformer_blocks") || part == "layers" || part.ends_with("_refiner"));
    is_inside && !parts.any(|part| part.starts_with("norm") || part.starts_with("adaLN"))
}

/// The same tensor, the kernels of convolutions stored with their channels innermost.
///
/// Convolutions take their memory format from their weight, and everything between them keeps it. On two CPU cores a
/// training step of the embedded VAE took two thirds of the time so (`docs/log.md`).
fn channels_last(tensor: Tensor) -> Tensor {
    match tensor.dim() {
        4 => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        _ => tensor,
    }
}

/// FNV-1a of a parameter's name: the index of its random draws.
fn name_key(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A place in the tree of parameter names.
#[derive(Clone)]
pub struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Scope<'_> {
    /// The scope one name further down.
    pub fn sub(&self, name: impl Display) -> Self {
        Self { weights: self.weights, prefix: self.full(name) }
    }

    /// The full name of something in this scope.
    pub fn full(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// The parameter `name` of this scope.
    pub fn param(&self, name: &str, shape: &[i64], init: Init) -> Param {
        let name = self.full(name);
        let tensor = self.start(&name, shape, init);
        if matches!(self.weights.source, Source::Shapes) {
            self.weights.parameters.borrow_mut().insert(name, tensor.shallow_clone());
            return Param { tensor, compute: self.weights.compute };
        }
        self.weights.place(name, tensor, self.weights.role)
    }

    /// A tensor that is stored with the parameters and never trained; `fresh` makes it where there is no checkpoint.
    pub fn buffer(&self, name: &str, shape: &[i64], fresh: impl FnOnce() -> Tensor) -> Param {
        let tensor = match &self.weights.source {
            Source::Shapes => return self.param(name, shape, Init::Zeros),
            Source::Fresh { .. } => fresh(),
            Source::Checkpoint(_) => self.start(&self.full(name), shape, Init::Zeros),
        };
        self.weights.place(self.full(name), tensor, Role::Frozen)
    }

    /// The weight of this scope's linear layer; in few bits where that was asked for. Its codes then stand for it among the network's
    /// parameters.
    pub(super) fn matrix(&self, n_in: i64, n_out: i64, init: Init) -> Weight {
        let (name, shape) = (self.full("weight"), [n_out, n_in]);
        let whole = || Weight::Whole(self.param("weight", &shape, init));
        if self.weights.role == Role::Trained || matches!(self.weights.source, Source::Shapes) {
            return whole();
        }
        let base = self.weights.base.filter(|_| is_large(&self.prefix));
        let stored = self.weights.stored_in_few_bits(&name, shape);
        let packed = match (stored, base) {
            // A file's own few bits stay as they are, unless others were asked for.
            (Some(Some(stored)), base) if base.is_none_or(|base| base == stored.precision()) => stored,
            (Some(Some(stored)), Some(base)) => Quantized::pack(&stored.value(Kind::Float), base),
            (None, Some(base)) => Quantized::pack(&self.start(&name, &shape, init), base),
            (Some(None), _) => return Weight::Whole(self.placeholder(&shape)),
            (_, None) => return whole(),
        };
        let packed = packed.to_device(self.weights.device);
        self.weights.parameters.borrow_mut().insert(name, packed.state()[0].shallow_clone());
        Weight::Quantized(packed, self.weights.compute)
    }

    /// Zeros in place of what was found faulty.
    fn placeholder(&self, shape: &[i64]) -> Param {
        self.weights.frozen(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)), self.weights.compute)
    }

    /// What a parameter starts as, on the host; without memory of its own where only shapes are asked for.
    fn start(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let zeros = || Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        match &self.weights.source {
            Source::Shapes => Tensor::zeros([], (Kind::Float, Device::Cpu)).expand(shape, false),
            Source::Checkpoint(_) => self.weights.stored(name, shape).unwrap_or_else(zeros),
            Source::Fresh { seed } => self.weights.initial(*seed, name, shape, init),
        }
    }

    /// The adapter of this scope's layer, if the specification targets it.
    ///
    /// # Shapes
    /// `down` is the shape of the down projection, `up` of the up projection; both start as peft's `gaussian` does:
    /// normal with standard deviation 1/rank, and zero. DoRA's magnitudes start as the row norms of `weight` as it is
    /// computed with, in the compute type.
    pub(super) fn lora(
        &self,
        weight: &dyn Fn() -> Tensor,
        down: impl Fn(i64) -> Vec<i64>,
        up: impl Fn(i64) -> Vec<i64>,
    ) -> Option<Lora> {
        let spec = self.weights.lora.as_ref().filter(|spec| spec.targets(&self.prefix))?;
        let start = |name: &str, shape: Vec<i64>, fresh: &dyn Fn(&str, &[i64]) -> Tensor| {
            let name = self.full(name);
            let tensor = match spec.tensors.as_ref() {
                None => fresh(&name, &shape),
                Some(stored) => match stored.get(&name) {
                    Some(tensor) if tensor.size() == shape => tensor.shallow_clone(),
                    Some(tensor) => {
                        let mut report = self.weights.report.borrow_mut();
                        report.misshapen.push((name.clone(), tensor.size(), shape.clone()));
                        Tensor::zeros(&shape, (Kind::Float, Device::Cpu))
                    }
                    None => {
                        self.weights.report.borrow_mut().missing.push(name.clone());
                        Tensor::zeros(&shape, (Kind::Float, Device::Cpu))
                    }
                },
            };
            (name, tensor)
        };
        let rank = spec.ranks.rank(&self.prefix);
        let scale = spec.ranks.scale(&self.prefix);
        let draw = |init| move |name: &str, shape: &[i64]| self.weights.initial(spec.seed, name, shape, init);
        let down = start("lora_A.weight", down(rank), &draw(Init::Normal(1.0 / rank as f64)));
        let up = start("lora_B.weight", up(rank), &draw(Init::Zeros));
        let frozen = |(_, tensor): &(String, Tensor)| self.weights.frozen(tensor, self.weights.compute);
        let mut anchor =
            spec.anchored.then(|| Factors { down: frozen(&down), up: frozen(&up), magnitude: None });
        let trainable = |(name, tensor): (String, Tensor)| self.weights.place(name, tensor, Role::Trained);
        let mut trained = Factors { down: trainable(down), up: trainable(up), magnitude: None };
        if spec.use_dora {
            let rows = trained.up.tensor.size()[0];
            let shape = if trained.up.tensor.dim() == 4 { vec![1, rows, 1, 1] } else { vec![rows] };
            let norms = |_: &str, shape: &[i64]| {
                trained.row_norms(weight, scale).to_device(Device::Cpu).reshape(shape)
            };
            let magnitude = start("lora_magnitude_vector", shape, &norms);
            if let Some(anchor) = &mut anchor {
                anchor.magnitude = Some(self.weights.frozen(&magnitude.1, Kind::Float));
            }
            trained.magnitude = Some(Param { compute: Kind::Float, ..trainable(magnitude) });
        }
        Some(Lora { trained, anchor, scale, switch: self.weights.adapter_switch() })
    }
}
