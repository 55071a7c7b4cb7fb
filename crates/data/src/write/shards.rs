//! Parquet shards with the columns of Pick-a-Pic, and extra ones after them.
//!
//! Source: `yuvalkirstain/pickapic_v2`, whose `jpg_0` and `jpg_1` are plain binary columns.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{Type, TypePtr};
use tastemaker_store::StoreError;
use tastemaker_store::atomic::{self, NewFolder};

use crate::DataError;

/// Rows of a group, as the datasets package writes images: few enough that reading one row is cheap.
const GROUP_ROWS: usize = 100;

/// Bytes of a group; it is held in memory.
const GROUP_BYTES: usize = 64 << 20;

/// Bytes of a shard, about as large as those of Pick-a-Pic.
const SHARD_BYTES: usize = 480 << 20;

/// Pages are this small so that few images share one.
const PAGE_BYTES: usize = 1 << 20;

/// The columns that every set has.
const SCHEMA: &str = "message schema {
    required binary jpg_0;
    required binary jpg_1;
    required double label_0;
    required double label_1;
    required binary caption (UTF8);
    required boolean are_different;
    required boolean has_label;
}";

/// What an extra column holds; a row may have nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Numbers.
    Number,
    /// Whole numbers.
    Integer,
}

/// An extra column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraColumn {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

impl ExtraColumn {
    /// A column by its name.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// What a row has in an extra column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// In one of text.
    Text(String),
    /// In one of numbers.
    Number(f64),
    /// In one of whole numbers.
    Integer(i64),
    /// Nothing.
    Missing,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The images, encoded.
    pub images: [Vec<u8>; 2],
    /// How good each is; the larger wins.
    pub labels: [f64; 2],
    /// What both shall show.
    pub caption: String,
    /// Whether anybody has judged it.
    pub has_label: bool,
    /// One value for each extra column; one of another kind than its column's counts as missing.
    pub extra: Vec<Value>,
}

/// A set being written.
pub struct Shards {
    target: NewFolder,
    below: &'static str,
    columns: Vec<ExtraColumn>,
    written: Vec<PathBuf>,
    open: Option<Shard>,
    group: Vec<Row>,
    bytes: usize,
}

/// A shard being written.
struct Shard {
    path: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
}

impl Shards {
    /// Begins shards `train-00000-of-00010.parquet` and so on in a folder of `target`: `data/`, or its top for an empty name.
    pub fn begin(target: NewFolder, below: &'static str, columns: Vec<ExtraColumn>) -> Self {
        Self { target, below, columns, written: Vec::new(), open: None, group: Vec::new(), bytes: 0 }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`DataError::Store`] if the folder cannot be written.
    pub fn push(&mut self, row: Row) -> Result<(), DataError> {
        self.bytes += row.images.iter().map(Vec::len).sum::<usize>() + row.caption.len();
        self.group.push(row);
        if self.group.len() < GROUP_ROWS && self.bytes < GROUP_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes what is left and puts the folder into its place.
    ///
    /// # Errors
    /// As [`Shards::push`].
    pub fn finish(mut self) -> Result<(), DataError> {
        if !self.group.is_empty() {
            self.flush()?;
        }
        if let Some(last) = self.open.take() {
            self.written.push(last.finish()?);
        }
        let n = self.written.len();
        for (number, path) in self.written.iter().enumerate() {
            let name = format!("{}train-{number:05}-of-{n:05}.parquet", self.below);
            atomic::rename(path, self.target.file(&name)?)?;
        }
        Ok(self.target.finish()?)
    }

    fn flush(&mut self) -> Result<(), DataError> {
        if self.open.as_ref().is_some_and(|shard| shard.writer.bytes_written() >= SHARD_BYTES)
            && let Some(full) = self.open.take()
        {
            self.written.push(full.finish()?);
        }
        let mut shard = match self.open.take() {
            Some(open) => open,
            None => {
                let path = self.target.file(&format!("{}{}", self.below, self.written.len()))?;
                Shard::begin(path, &self.columns)?
            }
        };
        self.bytes = 0;
        shard.write(std::mem::take(&mut self.group), &self.columns)?;
        self.open = Some(shard);
        Ok(())
    }
}

impl Shard {
    fn begin(path: PathBuf, columns: &[ExtraColumn]) -> Result<Self, DataError> {
        let file = BufWriter::with_capacity(1 << 20, create(&path)?);
        let schema = schema(columns).map_err(|e| failed(&path, e))?;
        let properties = WriterProperties::builder()
            .set_created_by("tastemaker".into())
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_write_batch_size(1)
            .build();
        let writer =
            SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(|e| failed(&path, e))?;
        Ok(Self { path, writer })
    }

    fn write(&mut self, rows: Vec<Row>, extra_columns: &[ExtraColumn]) -> Result<(), DataError> {
        let write = || {
            let mut images: [Vec<ByteArray>; 2] = [Vec::new(), Vec::new()];
            let (mut labels, mut captions) = ([Vec::new(), Vec::new()], Vec::<ByteArray>::new());
            let (mut different, mut judged) = (Vec::new(), Vec::new());
            let mut values: Vec<Vec<Value>> = Vec::new();
            for Row { images: [first, second], labels: both, caption, has_label, extra } in rows {
                different.push(first != second);
                judged.push(has_label);
                images[0].push(first.into());
                images[1].push(second.into());
                labels.iter_mut().zip(both).for_each(|(labels, label)| labels.push(label));
                captions.push(caption.into_bytes().into());
                values.push(extra);
            }
            let mut columns = self.writer.next_row_group()?;
            for images in &images {
                column::<ByteArrayType>(&mut columns, images, None)?;
            }
            for labels in &labels {
                column::<DoubleType>(&mut columns, labels, None)?;
            }
            column::<ByteArrayType>(&mut columns, &captions, None)?;
            column::<BoolType>(&mut columns, &different, None)?;
            column::<BoolType>(&mut columns, &judged, None)?;
            for (number, ExtraColumn { kind, .. }) in extra_columns.iter().enumerate() {
                let of_column = || values.iter().map(|row| row.get(number));
                match kind {
                    Kind::Text => {
                        let text = |value: Option<&Value>| match value {
                            Some(Value::Text(text)) => Some(text.as_bytes().to_vec().into()),
                            _ => None,
                        };
                        optional::<ByteArrayType>(&mut columns, of_column().map(text))?;
                    }
                    Kind::Number => {
                        let number = |value: Option<&Value>| match value {
                            Some(Value::Number(number)) => Some(*number),
                            _ => None,
                        };
                        optional::<DoubleType>(&mut columns, of_column().map(number))?;
                    }
                    Kind::Integer => {
                        let integer = |value: Option<&Value>| match value {
                            Some(Value::Integer(number)) => Some(*number),
                            _ => None,
                        };
                        optional::<Int64Type>(&mut columns, of_column().map(integer))?;
                    }
                }
            }
            columns.close().map(|_| ())
        };
        write().map_err(|e| failed(&self.path, e))
    }

    fn finish(self) -> Result<PathBuf, DataError> {
        let Self { path, writer } = self;
        let out = writer.into_inner().map_err(|e| failed(&path, e))?;
        let file = out.into_inner().map_err(|e| StoreError::io("write", &path, e.into_error()))?;
        file.sync_all().map_err(|e| StoreError::io("sync", &path, e))?;
        Ok(path)
    }
}

/// The columns of every set with extra ones after them. Names go in as they are, whatever is in them.
fn schema(extra: &[ExtraColumn]) -> ParquetResult<TypePtr> {
    let mut fields = parse_message_type(SCHEMA)?.get_fields().to_vec();
    for ExtraColumn { name, kind } in extra {
        let (physical, logical) = match kind {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Integer => (Physical::INT64, None),
        };
        let field = Type::primitive_type_builder(name, physical).with_logical_type(logical).build()?;
        fields.push(Arc::new(field));
    }
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?))
}

/// A column in which some rows have nothing.
fn optional<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    values: impl Iterator<Item = Option<T::T>>,
) -> ParquetResult<()> {
    let (mut there, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        there.extend(value);
    }
    column::<T>(columns, &there, Some(&levels))
}

/// Values of a column, and of each row 1 where it has one.
fn column<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> ParquetResult<()> {
    let mut column = columns.next_column()?.ok_or_else(|| ParquetError::General("too few columns".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn failed(path: &Path, error: ParquetError) -> DataError {
    StoreError::io("write", path, std::io::Error::other(error)).into()
}

/// Creates a file that nothing reads before the folder is whole.
///
/// # Errors
/// [`StoreError::Io`].
pub(super) fn create(path: &Path) -> Result<File, StoreError> {
    File::create(path).map_err(|e| StoreError::io("write", path, e))
}
