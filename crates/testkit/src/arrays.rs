//! Named arrays of f32 in safetensors files, without tensors.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

/// Shape and values, the last dimension contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// As many as the sizes multiply to.
    pub values: Vec<f32>,
}

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Reads a file of f32 arrays.
///
/// # Panics
/// When the file is missing, malformed or holds another element type.
#[track_caller]
pub(crate) fn read(path: &Path) -> Arrays {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let array = |view: &TensorView<'_>| {
        assert_eq!(view.dtype(), Dtype::F32, "{}", path.display());
        let values =
            view.data().chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        Array { shape: view.shape().to_vec(), values: values.collect() }
    };
    file.iter().map(|(name, view)| (name.to_owned(), array(&view))).collect()
}

/// Writes them as PyTorch's users do.
///
/// # Panics
/// When the file cannot be written.
#[track_caller]
pub(crate) fn write(path: &Path, arrays: &Arrays) {
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| {
            (name, &*array.shape, array.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("as many values as the shape says"))
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let file = serialize(views, Some(metadata)).expect("named arrays are a file");
    std::fs::write(path, file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The names and shapes of a file of any element types.
#[track_caller]
pub(crate) fn shapes(path: &Path) -> BTreeMap<String, Vec<usize>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect()
}
