//! The values of one column, in the few kinds that matter here.

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescriptor;

use crate::formats::table::Cell;

/// A column of a group, read from front to back.
pub struct Column {
    reader: ColumnReader,
    levels: Levels,
    decimals: bool,
}

/// How a column says that a value is there.
#[derive(Clone, Copy)]
struct Levels {
    present: i16,
    /// Whether a row is a list.
    repeated: bool,
}

/// Some values of a column.
#[derive(Debug)]
pub enum Values {
    /// Text or images; equal ones of a dictionary share their bytes.
    Bytes(Vec<Option<ByteArray>>),
    /// Numbers.
    Numbers(Vec<Option<f64>>),
    /// True or false.
    Bools(Vec<Option<bool>>),
    /// So many of another kind.
    Other(usize),
}

impl Column {
    /// From its first value on.
    pub fn new(reader: ColumnReader, description: &ColumnDescriptor) -> Self {
        let decimals = description.type_scale() > 0;
        let levels =
            Levels { present: description.max_def_level(), repeated: description.max_rep_level() > 0 };
        Self { reader, levels, decimals }
    }

    /// The next values, fewer than `n` at the end. A list of one is its value, another one is nothing.
    ///
    /// # Errors
    /// [`ParquetError`] for damaged pages.
    pub fn read(&mut self, n: usize) -> Result<Values> {
        let levels = self.levels;
        Ok(match &mut self.reader {
            _ if self.decimals => Values::Other(self.skip(n)?),
            ColumnReader::ByteArrayColumnReader(reader) => {
                Values::Bytes(read(reader, n, levels, |value| value)?)
            }
            ColumnReader::BoolColumnReader(reader) => Values::Bools(read(reader, n, levels, |value| value)?),
            ColumnReader::Int32ColumnReader(reader) => Values::Numbers(read(reader, n, levels, f64::from)?),
            ColumnReader::Int64ColumnReader(reader) => {
                Values::Numbers(read(reader, n, levels, |v| v as f64)?)
            }
            ColumnReader::FloatColumnReader(reader) => Values::Numbers(read(reader, n, levels, f64::from)?),
            ColumnReader::DoubleColumnReader(reader) => Values::Numbers(read(reader, n, levels, |v| v)?),
            _ => Values::Other(self.skip(n)?),
        })
    }

    /// Passes over values, and says how many there were.
    ///
    /// # Errors
    /// [`ParquetError`] for damaged pages.
    pub fn skip(&mut self, n: usize) -> Result<usize> {
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => reader.skip_records(n),
            ColumnReader::Int32ColumnReader(reader) => reader.skip_records(n),
            ColumnReader::Int64ColumnReader(reader) => reader.skip_records(n),
            ColumnReader::Int96ColumnReader(reader) => reader.skip_records(n),
            ColumnReader::FloatColumnReader(reader) => reader.skip_records(n),
            ColumnReader::DoubleColumnReader(reader) => reader.skip_records(n),
            ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(n),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(n),
        }
    }
}

fn read<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    n: usize,
    levels: Levels,
    convert: impl Fn(T::T) -> U,
) -> Result<Vec<Option<U>>> {
    let Levels { present, repeated } = levels;
    if repeated {
        return lists_of_one(reader, n, present, convert);
    }
    let (mut values, mut levels, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    while rows.len() < n {
        values.clear();
        levels.clear();
        let levels_wanted = (present > 0).then_some(&mut levels);
        let (records, n_values, _) = reader.read_records(n - rows.len(), levels_wanted, None, &mut values)?;
        if records == 0 {
            break;
        }
        let mut values = values.drain(..).map(&convert);
        if present == 0 {
            rows.extend(values.map(Some));
            continue;
        }
        if levels.len() != records || levels.iter().filter(|level| **level == present).count() != n_values {
            return Err(ParquetError::General("levels that do not count the values".into()));
        }
        rows.extend(levels.iter().map(|level| if *level == present { values.next() } else { None }));
    }
    Ok(rows)
}

fn lists_of_one<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    n: usize,
    present: i16,
    convert: impl Fn(T::T) -> U,
) -> Result<Vec<Option<U>>> {
    let (mut values, mut present_at, mut begins_at) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows: Vec<Option<U>> = Vec::new();
    while rows.len() < n {
        values.clear();
        present_at.clear();
        begins_at.clear();
        let wanted = n - rows.len();
        let (records, n_values, _) =
            reader.read_records(wanted, Some(&mut present_at), Some(&mut begins_at), &mut values)?;
        if records == 0 {
            break;
        }
        let there = present_at.iter().filter(|level| **level == present).count();
        let lists = begins_at.iter().filter(|level| **level == 0).count();
        if present_at.len() != begins_at.len() || (lists, there) != (records, n_values) {
            return Err(ParquetError::General("levels that do not count the lists".into()));
        }
        let mut values = values.drain(..).map(&convert);
        for (level, begins) in present_at.iter().zip(&begins_at) {
            let value = if *level == present { values.next() } else { None };
            match rows.last_mut() {
                Some(row) if *begins > 0 => *row = None,
                _ => rows.push(value),
            }
        }
    }
    Ok(rows)
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Bools(values) => values.len(),
            Self::Other(n) => *n,
        }
    }

    /// The i-th, bytes as text.
    pub fn cell(&self, i: usize) -> Cell<'_> {
        match self {
            Self::Bytes(values) => match values[i].as_ref().map(|bytes| std::str::from_utf8(bytes.data())) {
                None => Cell::Null,
                Some(Ok(text)) => Cell::Text(text.into()),
                Some(Err(_)) => Cell::Other("bytes that are not UTF-8"),
            },
            Self::Numbers(values) => values[i].map_or(Cell::Null, Cell::Number),
            Self::Bools(values) => values[i].map_or(Cell::Null, Cell::Bool),
            Self::Other(_) => Cell::Other("a value of another type"),
        }
    }
}
