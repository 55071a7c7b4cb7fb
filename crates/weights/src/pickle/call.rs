//! The few calls that weights are made of, each interpreted here.

use safetensors::Dtype;

use super::limits::MAX_RANK;
use super::machine::Machine;
use super::refusal::{Refusal, quoted};
use super::value::{Dict, Object, Storage, Tensor, Value};

/// The storage classes of module `torch`.
const STORAGES: [(&str, Dtype); 10] = [
    ("DoubleStorage", Dtype::F64),
    ("FloatStorage", Dtype::F32),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::BF16),
    ("LongStorage", Dtype::I64),
    ("IntStorage", Dtype::I32),
    ("ShortStorage", Dtype::I16),
    ("CharStorage", Dtype::I8),
    ("ByteStorage", Dtype::U8),
    ("BoolStorage", Dtype::BOOL),
];

impl<'a> Machine<'a> {
    /// What a call results in, for the functions known here; any other is refused with its name.
    pub(super) fn call(&mut self, callee: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>, Refusal> {
        let Some(&Object::Global { module, name }) = self.object(callee) else {
            return Err(self.not_called(callee));
        };
        let Some(Object::Tuple(given)) = self.object(arguments) else {
            return Err(Refusal::new("a call whose arguments are not a tuple", "a tuple"));
        };
        match (module, name, given.as_slice()) {
            ("collections", "OrderedDict", []) => {
                self.create(Object::Dict(Dict { flat: Vec::new(), ordered: true }))
            }
            ("torch._utils", "_rebuild_tensor_v2", &[storage, offset, shape, stride, Value::Bool, hooks]) => {
                self.check_no_hooks(hooks)?;
                let tensor = self.tensor(storage, offset, shape, stride)?;
                self.create(Object::Tensor(tensor))
            }
            ("torch._utils", "_rebuild_parameter", &[tensor, Value::Bool, hooks]) => {
                self.check_no_hooks(hooks)?;
                match self.object(tensor) {
                    Some(Object::Tensor(_)) => Ok(tensor),
                    _ => Err(Refusal::new("a parameter without a tensor", "a tensor")),
                }
            }
            ("torch", "Size", &[shape]) => self.sizes(shape).map(Value::Object),
            ("collections", "OrderedDict", _)
            | ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_parameter", _)
            | ("torch", "Size", _) => Err(Refusal::new(
                format!("a call of `{module}.{name}` with {} arguments of other kinds", given.len()),
                "the arguments that torch.save writes",
            )),
            _ => Err(self.not_called(callee)),
        }
    }

    /// Attributes of an `OrderedDict`, such as a state dict's `_metadata`, say nothing about weights and are
    /// dropped; nothing else has any.
    pub(super) fn set_attributes(&mut self) -> Result<(), Refusal> {
        self.pop()?;
        match self.container()? {
            Object::Dict(Dict { ordered: true, .. }) => Ok(()),
            Object::Global { .. } => {
                let class = self.pop()?;
                Err(self.not_called(class))
            }
            _ => Err(Refusal::new("attributes set on a plain value", "them on an OrderedDict only")),
        }
    }

    /// The storage that a persistent id names: `("storage", class, key, location, elements)`.
    pub(super) fn storage(&self, id: Value<'a>) -> Result<Storage<'a>, Refusal> {
        let Some(Object::Tuple(parts)) = self.object(id) else {
            return Err(not_a_storage());
        };
        let &[Value::Text("storage"), class, Value::Text(key), Value::Text(_), Value::Int(n)] =
            parts.as_slice()
        else {
            return Err(not_a_storage());
        };
        let Some(&Object::Global { module, name }) = self.object(class) else {
            return Err(not_a_storage());
        };
        let known = STORAGES.iter().find(|(known, _)| module == "torch" && name == *known);
        let (_, dtype) = known.ok_or_else(|| {
            let wanted: Vec<_> = STORAGES.iter().map(|(name, _)| *name).collect();
            Refusal::new(
                format!("a storage of class `{}.{}`", quoted(module), quoted(name)),
                format!("one of torch's {}", wanted.join(", ")),
            )
        })?;
        let n_elements = usize::try_from(n).map_err(|_| {
            Refusal::new(format!("a storage of {n} elements"), "a size that fits this machine")
        })?;
        Ok(Storage { dtype: *dtype, key, n_elements })
    }

    fn tensor(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        stride: Value<'a>,
    ) -> Result<Tensor, Refusal> {
        let (Value::Object(storage), Some(Object::Storage(_))) = (storage, self.object(storage)) else {
            return Err(Refusal::new("a tensor without a storage", "a storage"));
        };
        let offset = match offset {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let offset = offset.ok_or_else(|| {
            Refusal::new("a tensor with no sensible offset", "a number that is not negative")
        })?;
        Ok(Tensor { storage, offset, shape: self.sizes(shape)?, stride: self.sizes(stride)? })
    }

    /// A tuple of a few numbers that are not negative.
    fn sizes(&self, value: Value<'a>) -> Result<u32, Refusal> {
        match (value, self.object(value)) {
            (Value::Object(at), Some(Object::Tuple(sizes)))
                if sizes.len() <= MAX_RANK && sizes.iter().all(|size| matches!(size, Value::Int(0..))) =>
            {
                Ok(at)
            }
            _ => Err(Refusal::new(
                "a shape or stride that is not a tuple of sizes",
                format!("at most {MAX_RANK} numbers that are not negative"),
            )),
        }
    }

    /// Hooks are functions to run when a gradient arrives; state dicts have none.
    fn check_no_hooks(&self, hooks: Value<'a>) -> Result<(), Refusal> {
        match self.object(hooks) {
            Some(Object::Dict(dict)) if dict.flat.is_empty() => Ok(()),
            _ => Err(Refusal::new("a tensor with hooks", "none")),
        }
    }
}

fn not_a_storage() -> Refusal {
    Refusal::new("a reference to something that is not a storage", "storages only")
}
