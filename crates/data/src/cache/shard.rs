//! A shard on disk: its header and its tables of whole numbers in memory, other rows read when they are used.
//!
//! Rows are read and not mapped: a file that is cut short while it is open then gives an error, and does not end the process.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tastemaker_store::StoreError;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::dtype::DType;
use tastemaker_store::tree::{Blob, LocalFile};
use tastemaker_weights::safetensors::{Dtype, Header, TensorInfo};
use xxhash_rust::xxh3::Xxh3Default;

use crate::DataError;

/// Bytes of the largest table that a shard of 256 pairs can need, and some.
const LONGEST_TABLE: usize = 1 << 20;

/// An open shard.
#[derive(Debug)]
pub(super) struct ShardFile {
    path: PathBuf,
    header: Header,
    head: String,
    tables: BTreeMap<String, Vec<i64>>,
}

impl ShardFile {
    /// Reads header and tables.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::Malformed`] for what is no shard.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let header = Header::read(path)?;
        let file = LocalFile::open(path)?;
        let mut covered = file.read_at(0, header.data_start)?;
        let mut tables = BTreeMap::new();
        for TensorInfo { name, dtype, shape, range } in &header.tensors {
            if *dtype != Dtype::I64 {
                continue;
            }
            if range.len() > LONGEST_TABLE || shape.len() != 2 {
                let found = format!("`{name}` of shape {shape:?}");
                return Err(StoreError::malformed(path, found, "a table of a shard"));
            }
            let bytes = file.read_at((header.data_start + range.start) as u64, range.len())?;
            let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap_or_default());
            tables.insert(name.clone(), bytes.chunks_exact(8).map(number).collect());
            covered.extend(bytes);
        }
        Ok(Self { path: path.to_owned(), header, head: sha256_bytes(&covered), tables })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 over header and tables: all that the checksums of rows are not of.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// A string of the header.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).map(String::as_str)
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.get(name)
    }

    /// A table of this many columns that must be there, row after row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn table(&self, name: &str, columns: usize) -> Result<&[i64], StoreError> {
        match (self.tables.get(name), self.header.get(name)) {
            (Some(numbers), Some(info)) if info.shape.last() == Some(&columns) => Ok(numbers),
            (_, Some(info)) => {
                let found = format!("`{name}` of type {} and shape {:?}", info.dtype, info.shape);
                Err(StoreError::malformed(&self.path, found, format!("I64 and {columns} columns")))
            }
            (_, None) => Err(self.lacks(name)),
        }
    }

    /// The error about a tensor that is not there.
    pub fn lacks(&self, name: &str) -> StoreError {
        StoreError::malformed(&self.path, format!("no tensor `{name}`"), "a shard of a cache")
    }

    /// The bytes of parts of tensors, each within its own tensor.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if the file ends before; [`StoreError::Io`].
    pub fn parts(&self, parts: &[FilePart<'_>]) -> Result<Vec<Vec<u8>>, DataError> {
        let damaged = |error: StoreError| match error {
            StoreError::Malformed { .. } | StoreError::Missing { .. } => self.damaged("its length"),
            StoreError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.damaged("its length")
            }
            other => other.into(),
        };
        let file = LocalFile::open(&self.path).map_err(damaged)?;
        let read = |(info, within): &FilePart<'_>| {
            if within.end > info.range.len() {
                return Err(self.damaged(&format!("a row of `{}`, which is not there", info.name)));
            }
            let start = self.header.data_start + info.range.start + within.start;
            file.read_at(start as u64, within.len()).map_err(damaged)
        };
        parts.iter().map(read).collect()
    }

    /// Asks the kernel to have parts of tensors at hand soon. Where it cannot, nothing is lost but time.
    pub fn read_ahead(&self, parts: &[FilePart<'_>]) {
        let Ok(file) = LocalFile::open(&self.path) else { return };
        for (info, within) in parts {
            let start = self.header.data_start + info.range.start + within.start;
            file.read_ahead(start as u64, within.len());
        }
    }

    /// The error about a part that is not what was written.
    pub fn damaged(&self, what: &str) -> DataError {
        DataError::DamagedCache { path: self.path.clone(), what: what.to_owned() }
    }
}

/// A tensor, and which of its bytes.
pub(super) type FilePart<'a> = (&'a TensorInfo, Range<usize>);

/// Row `number` of a tensor whose rows are that many bytes long.
pub(super) fn row(info: &TensorInfo, length: usize, number: usize) -> FilePart<'_> {
    (info, number * length..(number + 1) * length)
}

/// As safetensors spell an element type.
pub(super) fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
    }
}

/// The checksum of a row that is stored in parts.
pub(super) fn checksum(parts: &[&[u8]]) -> i64 {
    let mut hash = Xxh3Default::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.digest() as i64
}

/// Whole numbers as they are stored.
pub(super) fn bytes_of(numbers: impl IntoIterator<Item = i64>) -> Vec<u8> {
    numbers.into_iter().flat_map(i64::to_le_bytes).collect()
}
