//! One column of text, for lists of prompts.

use std::path::Path;
use std::sync::Arc;

use tastemaker_store::tree::Location;

use super::shard::Shard;
use super::splits::shards;
use crate::DataError;
use crate::formats::table::Cell;

/// What a page of text may unpack to; writers make pages of about 1 MiB.
const MAX_PAGE: u64 = 64 << 20;

/// The values of the first of these columns that a table has, row by row through all its shards; `None` where a row has none.
///
/// Images beside the column are not read.
///
/// # Errors
/// [`StoreError`](tastemaker_store::StoreError) for what is missing or damaged; [`DataError::Splits`];
/// [`DataError::Columns`] for a table with none of the columns.
pub fn read_texts(path: impl AsRef<Path>, names: &[&str]) -> Result<Vec<Option<String>>, DataError> {
    let location = Location::local(path)?;
    let mut texts = Vec::new();
    for entry in shards(&location, &location.entries()?)? {
        let shard = Shard::open(Arc::from(location.tree().open(&entry.path)?))?;
        let Some(leaf) = names.iter().find_map(|name| shard.plain(name)) else {
            return Err(DataError::Columns {
                path: shard.blob().place().to_owned(),
                found: shard.columns().join(", "),
                problem: format!("none of {} is a column of text", names.join(", ")),
            });
        };
        for (group, n) in shard.groups()?.into_iter().enumerate() {
            let mut column = shard.column(group, leaf, MAX_PAGE)?;
            let values = shard.guarded(|| column.read(n as usize))?;
            if (values.len() as u64) < n {
                return Err(shard.malformed(format!("{} rows in a group of {n}", values.len())));
            }
            texts.extend((0..values.len()).map(|i| match values.cell(i) {
                Cell::Text(text) => Some(text.into_owned()),
                _ => None,
            }));
        }
    }
    Ok(texts)
}
