//! One file as a set of named byte views.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;

use super::header::{Header, Metadata, TensorInfo};
use tastemaker_store::StoreError;

/// The bytes of a file, wherever they live: a buffer, or a memory map made by a crate that may use `unsafe`.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A tensor as it lies in a file, or as it shall be written to one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: &'a [usize],
    /// Its elements in row-major order, little-endian. Not necessarily aligned to the element size.
    pub bytes: &'a [u8],
}

/// An open safetensors file whose header has been checked against its length.
#[derive(Clone)]
pub struct SafeTensorsFile {
    path: PathBuf,
    header: Header,
    bytes: Bytes,
}

impl SafeTensorsFile {
    /// Reads a file into memory and checks it.
    ///
    /// A memory map needs `unsafe`, which this crate forbids; a crate that may use it maps the file and calls
    /// [`SafeTensorsFile::over`].
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`], or [`StoreError::Malformed`] for anything the format
    /// forbids.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // The header first: a wrong file of many gigabytes is refused before it is read.
        Header::read(path)?;
        let bytes = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
        Self::over(path, Arc::new(bytes))
    }

    /// Checks bytes that are at hand already; `path` is for errors.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn over(path: impl AsRef<Path>, bytes: Bytes) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let header = Header::parse(path, (*bytes).as_ref())?;
        Ok(Self { path: path.to_path_buf(), header, bytes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The free-form text of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.header.tensors.iter().map(|info| self.view(info))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.header.get(name).map(|info| self.view(info))
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        let data = &(*self.bytes).as_ref()[self.header.data_start..];
        TensorView {
            name: &info.name,
            dtype: info.dtype,
            shape: &info.shape,
            bytes: &data[info.range.clone()],
        }
    }
}

impl std::fmt::Debug for SafeTensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafeTensorsFile")
            .field("path", &self.path)
            .field("n_tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}
