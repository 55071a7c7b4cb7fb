//! Images inside parquet files.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tastemaker_store::StoreError;
use tastemaker_store::tree::{Entry, Tree, read_whole};

use super::column::{Column, Values};
use super::shard::{Held, Shard};
use crate::DataError;
use crate::set::{Container, MAX_IMAGE_BYTES};

/// Rows decoded in one go have about this many bytes.
const BLOCK_BYTES: u64 = 8 << 20;

/// And at most this many rows.
const BLOCK_ROWS: u64 = 128;

/// Decoded rows kept have about this many bytes, so that threads may ask in any order within them.
const KEPT_BYTES: usize = 64 << 20;

/// Groups that are being read from front to back at the same time. Each holds the pages that it is in, which count against
/// [`PAGES`](crate::budget::PAGES).
const CURSORS: usize = 2;

/// A page of images may take the whole budget of pages, [`PAGES`](crate::budget::PAGES).
const MAX_PAGE: u64 = u64::MAX;

/// An image among those of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// Row, counted through all shards.
    pub row: u64,
    /// Which of the row's columns of images.
    pub column: usize,
}

impl Inside {
    /// The number of the image in [`Images`].
    pub fn item(self) -> u32 {
        (self.row * 2 + self.column as u64) as u32
    }
}

/// Images inside the shards of a set, read some neighboring rows at a time.
#[derive(Debug)]
pub struct Images {
    tree: Arc<dyn Tree>,
    shards: Vec<Place>,
    rows: u64,
    reading: Mutex<Reading>,
}

/// A shard of the set, closed.
#[derive(Debug)]
struct Place {
    path: String,
    bytes: u64,
    /// Number of its first row in the set.
    first: u64,
    /// Rows of each group.
    groups: Vec<u64>,
    /// Columns of images: name, and numbers of bytes and path.
    images: Vec<(String, usize, Option<usize>)>,
}

#[derive(Debug, Default)]
struct Reading {
    cursors: VecDeque<Cursor>,
    blocks: VecDeque<Block>,
}

/// A group that is being read, columns of images and of their paths side by side.
struct Cursor {
    shard: usize,
    group: usize,
    next: u64,
    block_rows: u64,
    opened: Shard,
    columns: Vec<Column>,
}

/// Some rows of a group, decoded.
#[derive(Debug)]
struct Block {
    shard: usize,
    group: usize,
    first: u64,
    bytes: usize,
    /// Of each row, the values of the cursor's columns.
    rows: Vec<Vec<Value>>,
}

/// An image or a path. Rows that share one in the file's dictionary share it here.
type Value = Option<Arc<[u8]>>;

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {} of group {} of shard {}", self.next, self.group, self.shard)
    }
}

impl Images {
    /// None yet.
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self { tree, shards: Vec::new(), rows: 0, reading: Mutex::default() }
    }

    /// Adds a shard, and returns the number of its first row.
    ///
    /// # Errors
    /// [`DataError::Store`] for more rows than a set can have.
    pub fn add(
        &mut self,
        entry: &Entry,
        groups: &[u64],
        images: &[(String, Held)],
    ) -> Result<u64, DataError> {
        let first = self.rows;
        let rows = groups.iter().try_fold(first, |sum, n| sum.checked_add(*n));
        self.rows = rows.filter(|rows| *rows < u64::from(u32::MAX / 2)).ok_or_else(|| {
            let wanted = format!("at most {} in a set", u32::MAX / 2);
            StoreError::malformed(&self.tree.place(&entry.path), "rows without number", wanted)
        })?;
        let images = images.iter().map(|(name, held)| match held {
            Held::Images(bytes, path) => (name.clone(), *bytes, *path),
            Held::Paths(path) => (name.clone(), *path, None),
        });
        let (path, images) = (entry.path.clone(), images.collect());
        self.shards.push(Place { path, bytes: entry.bytes, first, groups: groups.to_vec(), images });
        Ok(first)
    }

    /// Shard, row in it, and which column of images.
    fn find(&self, item: u32) -> (usize, u64, usize) {
        let row = u64::from(item / 2);
        let shard = self.shards.partition_point(|shard| shard.first <= row).saturating_sub(1);
        (shard, row - self.shards[shard].first, item as usize % 2)
    }

    fn open(&self, shard: usize, group: usize) -> Result<Cursor, DataError> {
        let place = &self.shards[shard];
        let opened = Shard::open(Arc::from(self.tree.open(&place.path)?))?;
        if opened.groups()? != place.groups {
            return Err(opened.malformed("other rows than when it was opened first".into()));
        }
        let leaves = || place.images.iter().flat_map(|(_, bytes, path)| [Some(*bytes), *path]).flatten();
        let row_bytes: u64 = leaves().map(|leaf| opened.row_bytes(group, leaf)).sum();
        let block_rows = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, BLOCK_ROWS);
        let columns = leaves().map(|leaf| opened.column(group, leaf, MAX_PAGE));
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Cursor { shard, group, next: 0, block_rows, opened, columns })
    }

    /// The values of one row: those of its columns of bytes and of paths.
    fn row(&self, shard: usize, row: u64) -> Result<Vec<Value>, DataError> {
        let (mut group, mut row) = (0, row);
        while row >= self.shards[shard].groups[group] {
            row -= self.shards[shard].groups[group];
            group += 1;
        }
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = reading.blocks.iter().position(|block| block.has(shard, group, row));
        let at = match kept {
            Some(at) => at,
            None => {
                let cursor = reading
                    .cursors
                    .iter()
                    .position(|c| (c.shard, c.group) == (shard, group) && c.next <= row);
                // A cursor that fails is not put back: nobody knows where it stands.
                let open = || self.open(shard, group);
                let cursor = cursor.and_then(|at| reading.cursors.remove(at)).map_or_else(open, Ok);
                let read = |mut cursor: Cursor| Ok((cursor.block_with(row)?, cursor));
                let (block, cursor) = match cursor.and_then(read) {
                    // The pages of others may be what is too much.
                    Err(_) if !reading.cursors.is_empty() => {
                        reading.cursors.clear();
                        open().and_then(read)?
                    }
                    read => read?,
                };
                reading.cursors.push_back(cursor);
                reading.blocks.push_back(block);
                while reading.cursors.len() > CURSORS {
                    reading.cursors.pop_front();
                }
                while reading.blocks.len() > 1
                    && reading.blocks.iter().map(|block| block.bytes).sum::<usize>() > KEPT_BYTES
                {
                    reading.blocks.pop_front();
                }
                reading.blocks.len() - 1
            }
        };
        let block = &reading.blocks[at];
        Ok(block.rows[(row - block.first) as usize].clone())
    }
}

impl Cursor {
    /// Reads on to the block that has a row.
    fn block_with(&mut self, row: u64) -> Result<Block, DataError> {
        let first = row - (row - self.next) % self.block_rows;
        let (skip, n) = ((first - self.next) as usize, self.block_rows as usize);
        let mut rows: Vec<Vec<Value>> = Vec::new();
        let (mut known, mut bytes) = (HashMap::new(), 0);
        for column in &mut self.columns {
            let values = self.opened.guarded(|| {
                column.skip(skip)?;
                column.read(n)
            })?;
            let Values::Bytes(values) = values else {
                return Err(self.opened.malformed("a column of images that holds no bytes".into()));
            };
            rows.resize_with(rows.len().max(values.len()), Vec::new);
            for (row, value) in rows.iter_mut().zip(values) {
                row.push(value.map(|value| {
                    let data = value.data();
                    let copied = known.entry((data.as_ptr(), data.len())).or_insert_with(|| {
                        bytes += data.len();
                        // Kept beside, so that no other value has its place meanwhile.
                        (Arc::<[u8]>::from(data), value.clone())
                    });
                    copied.0.clone()
                }));
            }
        }
        self.next = first + n as u64;
        if rows.len() as u64 <= row - first || rows.iter().any(|row| row.len() != self.columns.len()) {
            return Err(self.opened.malformed(format!("no row {row} in the columns of a group's images")));
        }
        Ok(Block { shard: self.shard, group: self.group, first, bytes, rows })
    }
}

impl Block {
    fn has(&self, shard: usize, group: usize, row: u64) -> bool {
        (self.shard, self.group) == (shard, group)
            && (self.first..self.first + self.rows.len() as u64).contains(&row)
    }
}

impl Container for Images {
    fn read(&self, item: u32) -> Result<Vec<u8>, DataError> {
        let (shard, row, column) = self.find(item);
        let mut values = self.row(shard, row)?;
        let images = &self.shards[shard].images;
        let before: usize = images[..column].iter().map(|(.., path)| 1 + usize::from(path.is_some())).sum();
        let path = images[column].2.and_then(|_| values[before + 1].take());
        let fail = |found: String, wanted: String| {
            Err(StoreError::malformed(&self.place(item), found, wanted).into())
        };
        match (values[before].take(), path.map(|path| String::from_utf8(path.to_vec()))) {
            (Some(bytes), _) if bytes.len() as u64 > MAX_IMAGE_BYTES => {
                fail(format!("an image of {} bytes", bytes.len()), format!("at most {MAX_IMAGE_BYTES}"))
            }
            (Some(bytes), _) => Ok(bytes.to_vec()),
            (None, Some(Ok(path))) => {
                let shard = &self.shards[shard].path;
                let folder = shard.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
                Ok(read_whole(self.tree.open(&format!("{folder}{path}"))?.as_ref(), MAX_IMAGE_BYTES)?)
            }
            (None, Some(Err(_))) => fail("a path that is not UTF-8".into(), "text".into()),
            (None, None) => fail("no image".into(), "bytes or a path".into()),
        }
    }

    fn place(&self, item: u32) -> PathBuf {
        let (shard, row, column) = self.find(item);
        let shard = &self.shards[shard];
        self.tree.place(&format!("{}, row {row}, {}", shard.path, shard.images[column].0))
    }

    fn identity(&self, item: u32) -> (String, u64) {
        let (shard, row, column) = self.find(item);
        let shard = &self.shards[shard];
        (format!("{}/{row}/{}", shard.path, shard.images[column].0), shard.bytes)
    }
}
