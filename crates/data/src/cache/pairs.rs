//! Shards of pairs.
//!
//! Shapes: m orientations (1, or 2 where flipped images are there: as it is, then flipped), latents `[c, h, w]`.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `entries` | `[n, 9]` I64 | per pair: width and height of its bucket resolution, rows of winner and loser, number of the caption, height, width, top and left of the winner for SDXL's micro-conditioning; all -1 for a pair that is skipped |
//! | `WxH.mean`, `WxH.std` | `[rows, m, c, h, w]` | posteriors of the images of this resolution |
//! | `WxH.checks` | `[rows, m]` I64 | XXH3 over mean and deviation |
//!
//! The metadata entry `skipped` is a JSON list of `[position in the shard, detail]`.
//!
//! Version 1 called the tensors of standard deviations `WxH.deviation` and the metadata entry `left_out`; both are read.

use std::path::Path;

use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Bytes, Metadata, SafeTensorsFile, TensorView, to_bytes};

use super::rows::{bytes_of, checksum, dtype_of, malformed, stored, table, tensor};
use crate::DataError;
use crate::transform::Size;

const COLUMNS: usize = 9;

/// Where one image is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its bucket resolution, width and height in pixels.
    pub resolution: Size,
    /// Its row among the images of this resolution.
    pub number: u32,
}

/// A pair of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedPair {
    /// Bucket resolution of both images, width and height in pixels.
    pub resolution: Size,
    /// Row of the winner.
    pub winner: u32,
    /// Row of the loser.
    pub loser: u32,
    /// Number of the caption.
    pub caption: u32,
    /// Height, width, top and left of the winner, in pixels: its size as stored, and how much was cropped there.
    pub sizes: [u32; 4],
}

/// A shard that is being made.
#[derive(Debug)]
pub struct PairShardDraft {
    dtype: DType,
    entries: Vec<Option<CachedPair>>,
    skipped: Vec<(usize, String)>,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    resolution: Size,
    /// `[m, c, h, w]`.
    shape: [usize; 4],
    mean: Vec<u8>,
    std: Vec<u8>,
    checks: Vec<i64>,
}

impl PairShardDraft {
    /// An empty one.
    pub fn new(dtype: DType) -> Self {
        Self { dtype, entries: Vec::new(), skipped: Vec::new(), tables: Vec::new() }
    }

    /// Appends a pair, or why it is skipped.
    pub fn push(&mut self, pair: Result<CachedPair, String>) {
        match pair {
            Ok(pair) => self.entries.push(Some(pair)),
            Err(detail) => {
                self.skipped.push((self.entries.len(), detail));
                self.entries.push(None);
            }
        }
    }

    /// Appends the posterior of an image of this resolution: `[m, c, h, w]` little-endian numbers of the element type.
    /// Images of one resolution get row after row.
    ///
    /// # Panics
    /// If images of one resolution differ in shape, or bytes do not fill the shape.
    pub fn image(&mut self, resolution: Size, shape: [usize; 4], mean: &[u8], std: &[u8]) {
        let index =
            self.tables.iter().position(|table| table.resolution == resolution).unwrap_or_else(|| {
                let (mean, std, checks) = (Vec::new(), Vec::new(), Vec::new());
                self.tables.push(Table { resolution, shape, mean, std, checks });
                self.tables.len() - 1
            });
        let table = &mut self.tables[index];
        let length = shape.iter().product::<usize>() * self.dtype.bytes();
        assert!(table.shape == shape && mean.len() == length && std.len() == length, "{shape:?}");
        let part = length / shape[0];
        for (mean, std) in mean.chunks_exact(part).zip(std.chunks_exact(part)) {
            table.checks.push(checksum(&[mean, std]));
        }
        table.mean.extend_from_slice(mean);
        table.std.extend_from_slice(std);
    }

    /// The shard's bytes, a pure function of what was put in.
    ///
    /// # Errors
    /// [`StoreError`] never, unless there are more tensors than a header holds.
    pub fn into_bytes(self) -> Result<Vec<u8>, DataError> {
        let Self { dtype, entries, skipped, mut tables } = self;
        let dtype = stored(dtype);
        tables.sort_by_key(|table| table.resolution);
        let columns = entries.iter().flat_map(|entry| match entry {
            None => [-1; COLUMNS],
            Some(pair) => {
                let CachedPair { resolution, winner, loser, caption, sizes: [height, width, top, left] } =
                    *pair;
                [resolution.0, resolution.1, winner, loser, caption, height, width, top, left].map(i64::from)
            }
        });
        let columns = bytes_of(columns);
        let checks: Vec<Vec<u8>> =
            tables.iter().map(|table| bytes_of(table.checks.iter().copied())).collect();
        let names: Vec<[String; 3]> = tables
            .iter()
            .map(|Table { resolution: (w, h), .. }| {
                ["mean", "std", "checks"].map(|part| format!("{w}x{h}.{part}"))
            })
            .collect();
        let shapes: Vec<(Vec<usize>, Vec<usize>)> = tables
            .iter()
            .map(|table| {
                let [m, c, h, w] = table.shape;
                let rows = table.checks.len() / m;
                (vec![rows, m, c, h, w], vec![rows, m])
            })
            .collect();
        let entries_shape = vec![entries.len(), COLUMNS];
        let whole = tastemaker_weights::safetensors::Dtype::I64;
        let mut views =
            vec![TensorView { name: "entries", dtype: whole, shape: &entries_shape, bytes: &columns }];
        for (((table, [mean, std, check]), (shape, check_shape)), checks) in
            tables.iter().zip(&names).zip(&shapes).zip(&checks)
        {
            views.push(TensorView { name: mean, dtype, shape, bytes: &table.mean });
            views.push(TensorView { name: std, dtype, shape, bytes: &table.std });
            views.push(TensorView { name: check, dtype: whole, shape: check_shape, bytes: checks });
        }
        let skipped = serde_json::to_string(&skipped).unwrap_or_default();
        let metadata: Metadata = [("skipped".to_owned(), skipped)].into();
        Ok(to_bytes(Path::new("a shard of a cache"), &views, &metadata)?)
    }
}

/// A shard that is read.
#[derive(Debug)]
pub struct PairShard {
    file: SafeTensorsFile,
    entries: Vec<Option<CachedPair>>,
    skipped: Vec<(usize, String)>,
}

/// The posterior of one image in one orientation, as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// `[c, h, w]`.
    pub shape: [usize; 3],
    /// Type of the numbers.
    pub dtype: DType,
    /// Means.
    pub mean: &'a [u8],
    /// Standard deviations.
    pub std: &'a [u8],
}

impl PairShard {
    /// Over the bytes of a shard of `n_pairs` pairs; `path` is for errors.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn over(path: &Path, bytes: Bytes, n_pairs: usize) -> Result<Self, DataError> {
        let file = SafeTensorsFile::over(path, bytes)?;
        let numbers = table(&file, "entries", COLUMNS)?;
        if numbers.len() != n_pairs * COLUMNS {
            let found = format!("{} pairs", numbers.len() / COLUMNS);
            return Err(malformed(path, found, &format!("{n_pairs}")).into());
        }
        let mut entries = Vec::with_capacity(n_pairs);
        for row in numbers.chunks_exact(COLUMNS) {
            if row.iter().all(|&number| number == -1) {
                entries.push(None);
                continue;
            }
            let narrow: Result<Vec<u32>, _> = row.iter().map(|&number| u32::try_from(number)).collect();
            let Ok([w, h, winner, loser, caption, height, width, top, left]) = narrow.as_deref() else {
                return Err(malformed(path, format!("the entry {row:?}"), "numbers of rows").into());
            };
            let sizes = [*height, *width, *top, *left];
            let (resolution, winner, loser, caption) = ((*w, *h), *winner, *loser, *caption);
            entries.push(Some(CachedPair { resolution, winner, loser, caption, sizes }));
        }
        let named = ["skipped", "left_out"].iter().find_map(|key| file.metadata().get(*key));
        let skipped = named.map(String::as_str).unwrap_or("[]");
        let skipped = serde_json::from_str(skipped)
            .map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
        Ok(Self { file, entries, skipped })
    }

    /// The pairs, `None` for one that is skipped.
    pub fn pairs(&self) -> &[Option<CachedPair>] {
        &self.entries
    }

    /// Positions in the shard that are skipped, and why.
    pub fn skipped(&self) -> &[(usize, String)] {
        &self.skipped
    }

    /// The posterior of an image, checked.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not what was written.
    pub fn image(&self, row: Row, hflip: bool) -> Result<Stored<'_>, DataError> {
        let Row { resolution: (width, height), number } = row;
        let view = |part: &str| tensor(&self.file, &format!("{width}x{height}.{part}"));
        let (mean, std) = (view("mean")?, view("std").or_else(|_| view("deviation"))?);
        let damaged = || DataError::DamagedCache {
            path: self.file.path().to_owned(),
            what: format!("row {number} of the images of {width} x {height}"),
        };
        let (&[rows, m, c, h, w], Some(dtype)) = (mean.shape, dtype_of(mean.dtype)) else {
            return Err(damaged());
        };
        let checks = table(&self.file, &format!("{width}x{height}.checks"), m)?;
        let at = number as usize * m + usize::from(hflip);
        let length = c * h * w * dtype.bytes();
        let same = mean.shape == std.shape && mean.dtype == std.dtype;
        if !same || number as usize >= rows || (hflip && m < 2) || checks.len() != rows * m {
            return Err(damaged());
        }
        let part = |bytes| -> &[u8] { std::ops::Index::index(bytes, at * length..(at + 1) * length) };
        let (mean, std) = (part(mean.bytes), part(std.bytes));
        if checksum(&[mean, std]) != checks[at] {
            return Err(damaged());
        }
        Ok(Stored { shape: [c, h, w], dtype, mean, std })
    }
}
