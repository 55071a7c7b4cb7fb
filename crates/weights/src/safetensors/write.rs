//! Writing: the same tensors and metadata always give the same bytes.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::file::TensorView;
use super::header::{MAX_HEADER_BYTES, Metadata, byte_len};
use tastemaker_store::{StoreError, atomic};

/// Writes tensors and metadata to `path`, atomically.
///
/// Wider element types come first and names are in order within each, as the reference writer lays them out,
/// so that every tensor is aligned to its element size.
///
/// # Errors
/// [`StoreError::Malformed`] if a name appears twice, is `__metadata__`, or a tensor's bytes do not fit its
/// shape and type; [`StoreError::Io`] if the file cannot be written.
pub fn write(
    path: impl AsRef<Path>,
    tensors: &[TensorView<'_>],
    metadata: &Metadata,
) -> Result<(), StoreError> {
    let path = path.as_ref();
    let ordered = ordered(tensors);
    let header = header(path, &ordered, metadata)?;
    atomic::write(path, |out| lay_out(out, &header, &ordered))
}

/// The bytes that [`write()`] would write; `path` is for errors.
///
/// # Errors
/// [`StoreError::Malformed`], as [`write()`].
pub fn to_bytes(
    path: impl AsRef<Path>,
    tensors: &[TensorView<'_>],
    metadata: &Metadata,
) -> Result<Vec<u8>, StoreError> {
    let path = path.as_ref();
    let ordered = ordered(tensors);
    let header = header(path, &ordered, metadata)?;
    let mut bytes = Vec::new();
    lay_out(&mut bytes, &header, &ordered).map_err(|error| StoreError::io("write", path, error))?;
    Ok(bytes)
}

fn ordered<'a>(tensors: &[TensorView<'a>]) -> Vec<TensorView<'a>> {
    let mut ordered = tensors.to_vec();
    ordered.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    ordered
}

fn lay_out(out: &mut impl Write, header: &[u8], tensors: &[TensorView<'_>]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    tensors.iter().try_for_each(|tensor| out.write_all(tensor.bytes))
}

fn header(path: &Path, tensors: &[TensorView<'_>], metadata: &Metadata) -> Result<Vec<u8>, StoreError> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for tensor in tensors {
        let TensorView { name, dtype, shape, bytes } = tensor;
        if byte_len(shape, *dtype) != Some(bytes.len()) {
            return Err(StoreError::malformed(
                path,
                format!("{} bytes for tensor `{name}`", bytes.len()),
                format!("as many as type {dtype} and shape {shape:?} take"),
            ));
        }
        let end = start + bytes.len();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        if *name == "__metadata__" || entries.insert((*name).to_owned(), entry).is_some() {
            return Err(StoreError::malformed(
                path,
                format!("tensor name `{name}`"),
                "a name that is not taken",
            ));
        }
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > MAX_HEADER_BYTES {
        return Err(StoreError::malformed(
            path,
            format!("a header of {} bytes", text.len()),
            format!("at most {MAX_HEADER_BYTES}"),
        ));
    }
    Ok(text)
}
