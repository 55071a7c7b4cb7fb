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

use std::collections::HashMap;
use std::path::Path;

use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Metadata, TensorView, to_bytes};

use super::Key;
use super::shard::{FilePart, ShardFile, bytes_of, checksum, row, stored};
use crate::DataError;
use crate::transform::Size;

pub(super) const COLUMNS: usize = 9;

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
    /// [`StoreError`](tastemaker_store::StoreError) never, unless there are more tensors than a header holds.
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

/// The list of skipped pairs in the header of a shard, under its name of this version or of version 1.
pub(super) fn skipped(file: &ShardFile) -> Result<Vec<(usize, String)>, serde_json::Error> {
    let named = ["skipped", "left_out"].iter().find_map(|key| file.metadata(key));
    serde_json::from_str(named.unwrap_or("[]"))
}

/// What the pairs of a shard must be like.
#[derive(Debug, Clone, Copy)]
pub struct PairLayout<'a> {
    /// What the cache was made from.
    pub key: &'a Key,
    /// Pairs in this shard.
    pub n_pairs: usize,
    /// Distinct captions of the set.
    pub n_captions: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// Image pixels per latent pixel, along one side.
    pub downsampling: usize,
}

/// A shard that is read.
#[derive(Debug)]
pub struct PairShard {
    file: ShardFile,
    entries: Vec<Option<CachedPair>>,
    skipped: Vec<(usize, String)>,
    dtype: DType,
    channels: usize,
    downsampling: usize,
}

/// The posterior of one image in one orientation, as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// `[c, h, w]`.
    pub shape: [usize; 3],
    /// Type of the numbers.
    pub dtype: DType,
    /// Means.
    pub mean: Vec<u8>,
    /// Standard deviations.
    pub std: Vec<u8>,
}

impl PairShard {
    /// Holds a shard against what it must be like.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] with the first thing that does not fit.
    pub(super) fn of(file: ShardFile, layout: &PairLayout<'_>) -> Result<Self, DataError> {
        let PairLayout { key, n_pairs, n_captions, channels, downsampling } = *layout;
        let dtype = key.latents.dtype;
        let mut shard =
            Self { file, entries: Vec::new(), skipped: Vec::new(), dtype, channels, downsampling };
        let damaged = |what: String| shard.file.damaged(&what);
        let n_rows = shard.rows(key)?;
        let numbers = shard.file.table("entries", COLUMNS).map_err(|error| damaged(error.to_string()))?;
        if numbers.len() != n_pairs * COLUMNS {
            return Err(damaged(format!("it has {} pairs, wanted {n_pairs}", numbers.len() / COLUMNS)));
        }
        let mut entries = Vec::with_capacity(n_pairs);
        for (at, row) in numbers.chunks_exact(COLUMNS).enumerate() {
            if row.iter().all(|&number| number == -1) {
                entries.push(None);
                continue;
            }
            let narrow: Result<Vec<u32>, _> = row.iter().map(|&number| u32::try_from(number)).collect();
            let pair = match narrow.as_deref() {
                Ok(&[w, h, winner, loser, caption, height, width, top, left]) => {
                    let sizes = [height, width, top, left];
                    Some(CachedPair { resolution: (w, h), winner, loser, caption, sizes })
                }
                _ => None,
            };
            let fits = |pair: &CachedPair| {
                let n_rows = n_rows.get(&pair.resolution).copied().unwrap_or_default();
                let rows = [pair.winner, pair.loser];
                rows.iter().all(|&row| (row as usize) < n_rows) && (pair.caption as usize) < n_captions
            };
            let pair = pair.filter(fits);
            entries.push(Some(pair.ok_or_else(|| damaged(format!("the entry of pair {at}, {row:?}")))?));
        }
        let skipped =
            skipped(&shard.file).map_err(|error| damaged(format!("its list of skipped pairs: {error}")))?;
        let is_skipped = |position: usize| matches!(entries.get(position), Some(None));
        let n_skipped = entries.iter().filter(|entry| entry.is_none()).count();
        if skipped.len() != n_skipped || !skipped.iter().all(|&(position, _)| is_skipped(position)) {
            return Err(damaged("its list of skipped pairs, which does not go with the entries".to_owned()));
        }
        (shard.entries, shard.skipped) = (entries, skipped);
        Ok(shard)
    }

    /// How many images there are of each resolution, every tensor held against what it must be.
    fn rows(&self, key: &Key) -> Result<HashMap<Size, usize>, DataError> {
        let mut n_rows = HashMap::new();
        let mut n_known = 1;
        for resolution in key.images.all() {
            let [mean, std, checks] = self.names(resolution);
            let Some(found) = self.file.tensor(&mean) else { continue };
            let m = if key.hflip { 2 } else { 1 };
            let [c, h, w] = self.shape(resolution);
            let rows = found.shape.first().copied().unwrap_or_default();
            let wanted = [rows, m, c, h, w];
            for name in [&mean, &std] {
                let found = self.file.tensor(name).filter(|info| info.dtype == stored(self.dtype));
                if found.is_none_or(|info| info.shape != wanted) {
                    let what = format!("`{name}`, which is not {} of shape {wanted:?}", self.dtype);
                    return Err(self.file.damaged(&what));
                }
            }
            let checks =
                self.file.table(&checks, m).map_err(|error| self.file.damaged(&error.to_string()))?;
            if checks.len() != rows * m {
                return Err(self.file.damaged(&format!("its checksums of {rows} images")));
            }
            n_known += 3;
            n_rows.insert(resolution, rows);
        }
        if self.file.names().count() != n_known {
            return Err(self.file.damaged("its tensors, of which some belong to no resolution"));
        }
        Ok(n_rows)
    }

    /// Shape of the latents of a resolution.
    fn shape(&self, (width, height): Size) -> [usize; 3] {
        let side = |pixels: u32| pixels as usize / self.downsampling.max(1);
        [self.channels, side(height), side(width)]
    }

    /// Names of the tensors of a resolution.
    fn names(&self, (width, height): Size) -> [String; 3] {
        let name = |part: &str| format!("{width}x{height}.{part}");
        let former = name("deviation");
        let std = if self.file.tensor(&former).is_some() { former } else { name("std") };
        [name("mean"), std, name("checks")]
    }

    /// The pairs, `None` for one that is skipped.
    pub fn pairs(&self) -> &[Option<CachedPair>] {
        &self.entries
    }

    /// Positions in the shard that are skipped, and why.
    pub fn skipped(&self) -> &[(usize, String)] {
        &self.skipped
    }

    /// Asks the kernel to have the posterior of an image at hand soon. What is wrong shows when it is read.
    pub fn read_ahead(&self, row: Row, hflip: bool) {
        if let Some(Place { parts, .. }) = self.place(row, hflip) {
            self.file.read_ahead(&parts);
        }
    }

    /// The posterior of an image of one of its pairs, checked.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if it is not what was written.
    pub fn image(&self, row: Row, hflip: bool) -> Result<Stored, DataError> {
        let damaged = || {
            let Row { resolution: (width, height), number } = row;
            self.file.damaged(&format!("row {number} of the images of {width} x {height}"))
        };
        let Place { parts, at, shape, checks } = self.place(row, hflip).ok_or_else(damaged)?;
        let parts = self.file.parts(&parts)?;
        match <[Vec<u8>; 2]>::try_from(parts) {
            Ok([mean, std]) if checks.get(at) == Some(&checksum(&[&mean, &std])) => {
                Ok(Stored { shape, dtype: self.dtype, mean, std })
            }
            _ => Err(damaged()),
        }
    }

    fn place(&self, Row { resolution, number }: Row, hflip: bool) -> Option<Place<'_>> {
        let [mean, std, checks] = self.names(resolution);
        let (mean, std) = self.file.tensor(&mean).zip(self.file.tensor(&std))?;
        let m = *mean.shape.get(1)?;
        let shape = self.shape(resolution);
        let length = shape.iter().product::<usize>() * self.dtype.bytes();
        let checks = self.file.table(&checks, m).ok()?;
        let at = number as usize * m + usize::from(hflip);
        Some(Place { parts: [row(mean, length, at), row(std, length, at)], at, shape, checks })
    }
}

/// Where the posterior of one image in one orientation is in a shard.
struct Place<'a> {
    /// Its mean and its standard deviation.
    parts: [FilePart<'a>; 2],
    at: usize,
    shape: [usize; 3],
    checks: &'a [i64],
}
