//! Opening a table: captions and labels of every row, and where its images are.

use std::sync::Arc;

use tastemaker_store::tree::{Entry, Location};

use super::column::Values;
use super::images::{Images, Inside};
use super::shard::{Held, Shard};
use super::splits::shards;
use crate::DataError;
use crate::formats::OpenSettings;
use crate::formats::table::{Cell, INSIDE, Layout, Row, TableReader};
use crate::set::{ImageRef, PairSet};

/// Rows read at once.
const ROWS: usize = 1024;

/// What a page of captions, labels or paths may unpack to; writers make pages of about 1 MiB.
const MAX_PAGE: u64 = 64 << 20;

/// Reads the shards among files, which must be of one split unless they were named.
///
/// Columns follow a convention, or the mapping of `settings`, in each shard of its own. Image columns hold bytes, groups of
/// `bytes` and `path` as the datasets package writes them, or paths relative to the shard. Whether an image inside a table
/// is there, and decodes, shows when it is read. A [`PairId`](crate::PairId) is the row's number through all shards, counted
/// from 0 in order of their names.
///
/// # Errors
/// [`StoreError`](tastemaker_store::StoreError) naming the shard for one that is damaged; [`DataError::Splits`];
/// [`DataError::Columns`] for one that follows no convention; [`DataError::Empty`] if no pair is left.
pub fn read_parquet(
    location: &Location,
    entries: &[Entry],
    settings: &OpenSettings,
) -> Result<PairSet, DataError> {
    let mut reader = TableReader::new(location, location.typed(), settings);
    let mut images = Images::new(location.tree().clone());
    for entry in shards(location, entries)? {
        let shard = Shard::open(Arc::from(location.tree().open(&entry.path)?))?;
        let layout = Layout::of(&shard.columns(), settings, shard.blob().place())?;
        reader.table(&entry.path);
        let held = layout.shape.images().into_iter().map(|name| Ok((name.to_owned(), shard.held(name)?)));
        let held: Vec<(String, Held)> = held.collect::<Result<_, DataError>>()?;
        let groups = shard.groups()?;
        let first = images.add(&entry, &groups, &held)?;
        let mut row = first;
        for (group, n) in groups.into_iter().enumerate() {
            add_group(&shard, group, n, row, &layout, &held, &mut reader)?;
            row += n;
        }
    }
    reader.finish(Some(Box::new(images)))
}

/// Adds the `n` rows of a group, the first of which is row `first` of the set.
fn add_group(
    shard: &Shard,
    group: usize,
    n: u64,
    first: u64,
    layout: &Layout,
    images: &[(String, Held)],
    reader: &mut TableReader,
) -> Result<(), DataError> {
    let paths = images.iter().filter_map(|(name, held)| match held {
        Held::Paths(leaf) => Some((name.as_str(), *leaf)),
        Held::Images(..) => None,
    });
    let mut columns = Vec::new();
    for name in layout.others() {
        let Some(leaf) = shard.plain(name) else {
            return Err(shard.malformed(format!("the column {name:?}, which does not hold one value a row")));
        };
        columns.push((name, shard.column(group, leaf, MAX_PAGE)?));
    }
    for (name, leaf) in paths {
        columns.push((name, shard.column(group, leaf, MAX_PAGE)?));
    }
    for name in layout.extras() {
        if let Some(leaf) = shard.plain(name).or_else(|| shard.list(name)) {
            columns.push((name, shard.column(group, leaf, MAX_PAGE)?));
        }
    }
    if let ([], [(name, Held::Images(leaf, _)), ..]) = (columns.as_slice(), images) {
        // Nothing else counts the rows that the metadata claims.
        let mut column = shard.column(group, *leaf, u64::MAX)?;
        let counted = shard.guarded(|| column.skip(n as usize))?;
        check(shard, name, counted as u64, n)?;
    }
    let mut done = 0;
    while done < n {
        let wanted = (n - done).min(ROWS as u64);
        let mut read = Vec::with_capacity(columns.len());
        for (name, column) in &mut columns {
            let values = shard.guarded(|| column.read(wanted as usize))?;
            check(shard, name, done + values.len() as u64, done + wanted)?;
            read.push((*name, values));
        }
        for i in 0..wanted {
            let row = first + done + i;
            reader.row(layout, &TableRow { columns: &read, i: i as usize, images, row })?;
        }
        done += wanted;
    }
    Ok(())
}

fn check(shard: &Shard, column: &str, found: u64, wanted: u64) -> Result<(), DataError> {
    if found < wanted {
        return Err(shard.malformed(format!("{found} rows in the column {column:?} of at least {wanted}")));
    }
    Ok(())
}

struct TableRow<'a> {
    columns: &'a [(&'a str, Values)],
    i: usize,
    images: &'a [(String, Held)],
    /// The row's number in the set.
    row: u64,
}

impl Row for TableRow<'_> {
    fn cell(&self, column: &str) -> Cell<'_> {
        if let Some((_, values)) = self.columns.iter().find(|(name, _)| *name == column) {
            return values.cell(self.i);
        }
        match self.images.iter().position(|(name, _)| name == column) {
            Some(column) => {
                let item = Inside { row: self.row, column }.item();
                Cell::Image(ImageRef { container: INSIDE, item })
            }
            None => Cell::Null,
        }
    }
}
