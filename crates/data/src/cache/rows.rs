//! Rows of a tensor in a shard, each with its checksum.

use std::path::Path;

use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Dtype, SafeTensorsFile, TensorView};
use xxhash_rust::xxh3::Xxh3Default;

/// As safetensors spell an element type.
pub(super) fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
    }
}

/// The element type of what is stored, `None` for another one.
pub(super) fn dtype_of(found: Dtype) -> Option<DType> {
    [DType::F32, DType::F16, DType::Bf16].into_iter().find(|dtype| stored(*dtype) == found)
}

/// The checksum of a row that is stored in parts.
pub(super) fn checksum(parts: &[&[u8]]) -> i64 {
    let mut hash = Xxh3Default::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.digest() as i64
}

/// A tensor of this name, shape and type must be there.
pub(super) fn tensor<'a>(file: &'a SafeTensorsFile, name: &str) -> Result<TensorView<'a>, StoreError> {
    file.get(name).ok_or_else(|| malformed(file.path(), format!("no tensor `{name}`"), "a shard of a cache"))
}

/// A table of whole numbers, `[rows, columns]`.
pub(super) fn table(file: &SafeTensorsFile, name: &str, columns: usize) -> Result<Vec<i64>, StoreError> {
    let view = tensor(file, name)?;
    let fits = view.dtype == Dtype::I64 && view.shape.len() == 2 && view.shape[1] == columns;
    if !fits {
        let found = format!("`{name}` of type {} and shape {:?}", view.dtype, view.shape);
        return Err(malformed(file.path(), found, &format!("I64 and {columns} columns")));
    }
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap_or_default());
    Ok(view.bytes.chunks_exact(8).map(number).collect())
}

/// Whole numbers as they are stored.
pub(super) fn bytes_of(numbers: impl IntoIterator<Item = i64>) -> Vec<u8> {
    numbers.into_iter().flat_map(i64::to_le_bytes).collect()
}

pub(super) fn malformed(path: &Path, found: impl Into<String>, wanted: &str) -> StoreError {
    StoreError::malformed(path, found, wanted)
}
