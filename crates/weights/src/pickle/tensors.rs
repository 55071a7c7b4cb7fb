//! From what the pickle built to named views of the file.

use std::ops::Range;

use safetensors::Dtype;

use super::archive::Archive;
use super::machine::Pickled;
use super::refusal::{CONVERT, Refusal, quoted};
use super::value::{Dict, Object, Tensor, Value};

/// A tensor and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub range: Range<usize>,
}

/// The tensors of the state dict, in name order.
pub(super) fn entries(pickled: &Pickled<'_>, archive: &Archive<'_>) -> Result<Vec<Entry>, Refusal> {
    let dict = state_dict(pickled)?;
    let mut entries = Vec::with_capacity(dict.flat.len() / 2);
    for (key, value) in dict.entries() {
        let Value::Text(name) = key else {
            return Err(Refusal::new("a state dict with a key that is not text", "tensors by name"));
        };
        let Some(Object::Tensor(tensor)) = pickled.object(value) else {
            return Err(Refusal::new(
                format!("entry `{}`, which is not a tensor", quoted(name)),
                "tensors by name, at the top or under `state_dict`",
            ));
        };
        entries.push(entry(pickled, archive, name, tensor)?);
    }
    entries.sort_by(|a: &Entry, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Refusal::new(format!("two tensors named `{}`", quoted(&pair[0].name)), "each name once"));
    }
    Ok(entries)
}

/// The dict at the top, or the one in its entry `state_dict`.
fn state_dict<'p, 'a>(pickled: &'p Pickled<'a>) -> Result<&'p Dict<'a>, Refusal> {
    let Some(Object::Dict(top)) = pickled.object(pickled.top) else {
        return Err(Refusal::new("a pickle of something else than a dict", "a state dict"));
    };
    let mut named = top.entries().filter(|(key, _)| matches!(key, Value::Text("state_dict")));
    match (named.next(), named.next()) {
        (None, _) => Ok(top),
        (Some((_, value)), None) => match pickled.object(value) {
            Some(Object::Dict(inner)) => Ok(inner),
            _ => Err(Refusal::new("an entry `state_dict` that is not a dict", "tensors by name in it")),
        },
        (Some(_), Some(_)) => Err(Refusal::new("two entries named `state_dict`", "one")),
    }
}

fn entry(
    pickled: &Pickled<'_>,
    archive: &Archive<'_>,
    name: &str,
    tensor: &Tensor,
) -> Result<Entry, Refusal> {
    let refuse = |what: &str, wanted: &str| Refusal::new(format!("tensor `{}` {what}", quoted(name)), wanted);
    let Some(Object::Storage(storage)) = pickled.object(Value::Object(tensor.storage)) else {
        return Err(refuse("without a storage", "a storage"));
    };
    let (shape, stride) = (sizes(pickled, tensor.shape), sizes(pickled, tensor.stride));
    let (Some(shape), Some(stride)) = (shape, stride) else {
        return Err(refuse("whose shape or stride is not sizes", "numbers that fit this machine"));
    };
    if shape.len() != stride.len() {
        let what = format!("of {} dimensions and {} strides", shape.len(), stride.len());
        return Err(refuse(&what, "as many of both"));
    }

    let too_large = || refuse(&format!("of shape {shape:?}"), "a size that fits this machine");
    let size = storage.dtype.bitsize() / 8;
    let n = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or_else(too_large)?;
    let start = tensor.offset.checked_mul(size).ok_or_else(too_large)?;
    let end = n.checked_mul(size).and_then(|len| start.checked_add(len)).ok_or_else(too_large)?;
    if n > 0 && !is_row_major(&shape, &stride) {
        return Err(refuse(
            &format!("of shape {shape:?} with strides {stride:?}"),
            &format!("elements one after the other, row by row; {CONVERT}"),
        ));
    }

    let key = quoted(storage.key);
    let bytes = archive
        .get(&format!("data/{}", storage.key))
        .ok_or_else(|| refuse(&format!("in storage `{key}`"), "that storage in the archive"))?;
    if storage.n_elements.checked_mul(size) != Some(bytes.len()) {
        return Err(refuse(
            &format!("in storage `{key}` of {} elements", storage.n_elements),
            &format!("as many as the {} bytes of data/{key} hold", bytes.len()),
        ));
    }
    if end > bytes.len() {
        return Err(refuse(
            &format!("at bytes {start}..{end} of storage `{key}`"),
            &format!("it within the storage's {} bytes", bytes.len()),
        ));
    }
    let range = bytes.start + start..bytes.start + end;
    Ok(Entry { name: name.to_owned(), dtype: storage.dtype, shape, range })
}

/// The numbers of a tuple, if each of them fits.
fn sizes(pickled: &Pickled<'_>, tuple: u32) -> Option<Vec<usize>> {
    let Some(Object::Tuple(sizes)) = pickled.object(Value::Object(tuple)) else { return None };
    let size = |value: &Value<'_>| match value {
        Value::Int(n) => usize::try_from(*n).ok(),
        _ => None,
    };
    sizes.iter().map(size).collect()
}

/// Whether elements follow one another in row-major order. Where a dimension has one element, its stride
/// means nothing.
fn is_row_major(shape: &[usize], stride: &[usize]) -> bool {
    let mut wanted = 1;
    shape.iter().zip(stride).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == wanted;
        wanted *= size;
        fits
    })
}
