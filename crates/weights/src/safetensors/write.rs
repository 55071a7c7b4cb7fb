//! Writing: the same tensors and metadata always give the same bytes.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::file::TensorView;
use super::header::{MAX_HEADER_BYTES, Metadata, byte_len};
use safetensors::Dtype;
use tastemaker_store::atomic::Staged;
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
    let (ordered, header) = of_views(path, tensors, metadata)?;
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
    let (ordered, header) = of_views(path, tensors, metadata)?;
    let mut bytes = Vec::new();
    lay_out(&mut bytes, &header, &ordered).map_err(|error| StoreError::io("write", path, error))?;
    Ok(bytes)
}

/// A tensor that is yet to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
}

/// [`write()`] of tensors that are asked for one after the other, so that no two have to be at hand at once: `bytes_of` writes the
/// elements of one. The file is not in its place until it is [finished](Staged::finish).
///
/// # Errors
/// As [`write()`], and those of `bytes_of`.
pub fn stage(
    path: impl AsRef<Path>,
    mut tensors: Vec<Outline>,
    metadata: &Metadata,
    mut bytes_of: impl FnMut(&Outline, &mut dyn Write) -> io::Result<()>,
) -> Result<Staged, StoreError> {
    let path = path.as_ref();
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(&b.name)));
    let header = header(path, tensors.iter().map(|t| (t.name.as_str(), t.dtype, &*t.shape)), metadata)?;
    Staged::write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| {
            let mut out = Counting { out: &mut *out, n_bytes: 0 };
            bytes_of(tensor, &mut out)?;
            let n_bytes = Some(out.n_bytes);
            let Outline { name, dtype, shape } = tensor;
            let fits = n_bytes == byte_len(shape, *dtype);
            let found =
                || format!("tensor `{name}` has other bytes than type {dtype} and shape {shape:?} take");
            fits.then_some(()).ok_or_else(|| io::Error::other(found()))
        })
    })
}

/// Counts what is written through it.
struct Counting<'a> {
    out: &'a mut dyn Write,
    n_bytes: usize,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.n_bytes += n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Views in the order of the file, and its header.
fn of_views<'a>(
    path: &Path,
    tensors: &[TensorView<'a>],
    metadata: &Metadata,
) -> Result<(Vec<TensorView<'a>>, Vec<u8>), StoreError> {
    let mut ordered = tensors.to_vec();
    ordered.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    let wrong = ordered.iter().find(|view| byte_len(view.shape, view.dtype) != Some(view.bytes.len()));
    if let Some(TensorView { name, dtype, shape, bytes }) = wrong {
        return Err(StoreError::malformed(
            path,
            format!("{} bytes for tensor `{name}`", bytes.len()),
            format!("as many as type {dtype} and shape {shape:?} take"),
        ));
    }
    let header = header(path, ordered.iter().map(|view| (view.name, view.dtype, view.shape)), metadata)?;
    Ok((ordered, header))
}

fn lay_out(out: &mut impl Write, header: &[u8], tensors: &[TensorView<'_>]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    tensors.iter().try_for_each(|tensor| out.write_all(tensor.bytes))
}

/// The header of tensors that follow each other.
fn header<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize])>,
    metadata: &Metadata,
) -> Result<Vec<u8>, StoreError> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0usize;
    for (name, dtype, shape) in tensors {
        let end = byte_len(shape, dtype).and_then(|n_bytes| start.checked_add(n_bytes)).ok_or_else(|| {
            let found = format!("tensor `{name}` of type {dtype} and shape {shape:?}");
            StoreError::malformed(path, found, "a size in whole bytes that fits this machine")
        })?;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        if name == "__metadata__" || entries.insert(name.to_owned(), entry).is_some() {
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
