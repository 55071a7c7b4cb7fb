//! What a pickle builds.

use safetensors::Dtype;

/// A value on the stack or in a container. Compound values live in the machine's list of objects, so that
/// values are copied freely, shared values stay shared, and nothing is ever freed recursively.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    /// A number that no weight depends on: a float, or an integer of more than 64 bits.
    Number,
    Text(&'a str),
    Object(u32),
}

/// A compound value.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Dict<'a>),
    /// The name of a function or class. A name only: it stands for nothing in this process.
    Global {
        module: &'a str,
        name: &'a str,
    },
    Storage(Storage<'a>),
    Tensor(Tensor),
}

/// A dict or an `OrderedDict`.
#[derive(Debug)]
pub(super) struct Dict<'a> {
    /// Keys and values in turn, in the order they were set.
    pub flat: Vec<Value<'a>>,
    /// Whether it may carry attributes, as an `OrderedDict` does.
    pub ordered: bool,
}

impl<'a> Dict<'a> {
    pub fn entries(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        self.flat.chunks_exact(2).map(|entry| (entry[0], entry[1]))
    }
}

/// The bytes that tensors are views of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub dtype: Dtype,
    /// The archive entry below `data/`.
    pub key: &'a str,
    pub n_elements: usize,
}

/// A view of a storage, as the pickle describes it; nothing in it has been compared with the storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    /// The storage object.
    pub storage: u32,
    /// Where it begins, in elements.
    pub offset: usize,
    /// The tuple object of its shape: non-negative integers.
    pub shape: u32,
    /// The tuple object of its strides, in elements: as many non-negative integers.
    pub stride: u32,
}
