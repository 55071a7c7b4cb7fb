//! One parquet file: its metadata, its columns, and what goes wrong with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::get_column_reader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::Type;
use tastemaker_store::StoreError;
use tastemaker_store::tree::Blob;

use super::column::Column;
use super::source::Source;
use crate::DataError;

/// An opened parquet file.
#[derive(Debug)]
pub struct Shard {
    blob: Arc<dyn Blob>,
    metadata: ParquetMetaData,
}

/// What a column of the table holds, as far as it can be an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Paths, in the column of this number.
    Paths(usize),
    /// Images, in the column of this number; where one is missing, the other number's column holds its path.
    Images(usize, Option<usize>),
}

impl Shard {
    /// Reads the metadata of a file.
    ///
    /// # Errors
    /// [`DataError::Store`] for what is no parquet file, or not a whole one.
    pub fn open(blob: Arc<dyn Blob>) -> Result<Self, DataError> {
        let source = Source::new(blob.clone(), None);
        let metadata = guarded(blob.as_ref(), || ParquetMetaDataReader::new().parse_and_finish(&source))?;
        Ok(Self { blob, metadata })
    }

    /// The file.
    pub fn blob(&self) -> &dyn Blob {
        self.blob.as_ref()
    }

    /// Names of the table's columns.
    pub fn columns(&self) -> Vec<String> {
        self.fields().iter().map(|field| field.name().to_owned()).collect()
    }

    /// How many rows each group has.
    ///
    /// # Errors
    /// [`DataError::Store`] for a negative count, and for more rows than eight for each byte of the file.
    pub fn groups(&self) -> Result<Vec<u64>, DataError> {
        let rows = self.metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()));
        let rows: Vec<u64> = rows
            .collect::<Result<_, _>>()
            .map_err(|_| self.malformed("a group of less than no rows".into()))?;
        // A few bytes can say that a value is that of a thousand million rows, and each row takes memory.
        let (n, most) = (rows.iter().fold(0, |n: u64, more| n.saturating_add(*more)), self.most_rows());
        if n > most {
            return Err(self.malformed(format!("{n} rows in {} bytes", self.blob.size())));
        }
        Ok(rows)
    }

    fn most_rows(&self) -> u64 {
        const ROWS_PER_BYTE: u64 = 8;
        self.blob.size().saturating_mul(ROWS_PER_BYTE)
    }

    /// The number of a column that holds one value a row, `None` if it holds something else.
    pub fn plain(&self, column: &str) -> Option<usize> {
        let field = self.fields().iter().find(|field| field.name() == column)?;
        field.is_primitive().then(|| self.leaf(&[column])).flatten()
    }

    /// The number of a column that holds a list a row, of values without parts.
    pub fn list(&self, column: &str) -> Option<usize> {
        let columns = self.metadata.file_metadata().schema_descr().columns();
        columns.iter().position(|leaf| match leaf.path().parts() {
            [name, _, _] => name == column && leaf.max_rep_level() == 1,
            _ => false,
        })
    }

    /// What a column of images holds.
    ///
    /// # Errors
    /// [`DataError::Store`] for a column that can hold no images.
    pub fn held(&self, column: &str) -> Result<Held, DataError> {
        let wrong = || {
            let found = format!("the column {column:?}, which holds neither images nor paths");
            StoreError::malformed(self.blob.place(), found, "bytes, text, or groups of bytes and path")
        };
        if let Some(leaf) = self.plain(column) {
            if self.physical(leaf) != Physical::BYTE_ARRAY {
                return Err(wrong().into());
            }
            return Ok(if self.is_text(leaf) { Held::Paths(leaf) } else { Held::Images(leaf, None) });
        }
        let part = |name: &str| {
            self.leaf(&[column, name]).filter(|leaf| self.physical(*leaf) == Physical::BYTE_ARRAY)
        };
        match (part("bytes"), part("path")) {
            (Some(bytes), Some(path)) if self.is_all_null(bytes) => Ok(Held::Paths(path)),
            (Some(bytes), path) => Ok(Held::Images(bytes, path)),
            (None, Some(path)) => Ok(Held::Paths(path)),
            (None, None) => Err(wrong().into()),
        }
    }

    /// Bytes that a row has on average in a column of a group, unpacked, as the metadata claims.
    pub fn row_bytes(&self, group: usize, leaf: usize) -> u64 {
        let group = self.metadata.row_group(group);
        let bytes = u64::try_from(group.column(leaf).uncompressed_size()).unwrap_or(0);
        bytes / u64::try_from(group.num_rows()).unwrap_or(1).max(1)
    }

    /// Opens a column of a group, whose pages unpack to at most `max_page` bytes each.
    ///
    /// # Errors
    /// [`DataError::Store`] if it cannot be read.
    pub fn column(&self, group: usize, leaf: usize, max_page: u64) -> Result<Column, DataError> {
        let group = self.metadata.row_group(group);
        let column = group.column(leaf);
        let source = Arc::new(Source::new(self.blob.clone(), Some((max_page, column.compression()))));
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        self.guarded(|| {
            let pages = SerializedPageReader::new(source, column, rows, None)?;
            Ok(Column::new(
                get_column_reader(column.column_descr_ptr(), Box::new(pages)),
                column.column_descr(),
            ))
        })
    }

    /// Runs what may fail or panic on damaged files.
    ///
    /// # Errors
    /// [`DataError::Store`] naming the file.
    pub fn guarded<T>(&self, work: impl FnOnce() -> ParquetResult<T>) -> Result<T, DataError> {
        guarded(self.blob.as_ref(), work)
    }

    /// The file contradicts itself.
    pub fn malformed(&self, found: String) -> DataError {
        StoreError::malformed(self.blob.place(), found, WANTED).into()
    }

    fn fields(&self) -> &[Arc<Type>] {
        self.metadata.file_metadata().schema().get_fields()
    }

    fn leaf(&self, path: &[&str]) -> Option<usize> {
        let columns = self.metadata.file_metadata().schema_descr().columns();
        columns.iter().position(|leaf| leaf.path().parts() == path && leaf.max_rep_level() == 0)
    }

    fn physical(&self, leaf: usize) -> Physical {
        self.metadata.file_metadata().schema_descr().column(leaf).physical_type()
    }

    fn is_text(&self, leaf: usize) -> bool {
        let column = self.metadata.file_metadata().schema_descr().column(leaf);
        matches!(column.logical_type_ref(), Some(LogicalType::String))
            || matches!(column.converted_type(), ConvertedType::UTF8)
    }

    fn is_all_null(&self, leaf: usize) -> bool {
        self.metadata.row_groups().iter().all(|group| {
            let nulls = group.column(leaf).statistics().and_then(|statistics| statistics.null_count_opt());
            nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(group.num_rows()))
        })
    }
}

const WANTED: &str = "a whole parquet file";

fn guarded<T>(blob: &dyn Blob, work: impl FnOnce() -> ParquetResult<T>) -> Result<T, DataError> {
    let fail = |found: String| StoreError::malformed(blob.place(), found, WANTED);
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        // What keeps a file from being read is no fault of its contents.
        Ok(Err(ParquetError::External(error))) => match StoreError::within(error) {
            Ok(own) => Err(own.into()),
            Err(error) => Err(fail(error.to_string()).into()),
        },
        Ok(Err(error)) => Err(fail(error.to_string()).into()),
        Err(panic) => {
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            Err(fail(format!("what its reader cannot cope with ({reason})")).into())
        }
    }
}
