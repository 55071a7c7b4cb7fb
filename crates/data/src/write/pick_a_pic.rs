//! A set in the layout of Pick-a-Pic.

use std::path::Path;

use tastemaker_store::atomic::NewFolder;

use super::shards::{ExtraColumn, Kind, Row, Shards, Value};
use super::{Written, each_pair};
use crate::set::PairSet;
use crate::{DataError, PairSource};

/// Writes `data/train-00000-of-00010.parquet` and so on. Images are written as they are stored; `jpg_0` wins in every row,
/// with the labels 1 and 0. Soft labels, where there are any, and prompts as they were typed are columns of their own.
///
/// # Errors
/// [`DataError::Store`] if images cannot be had or the folder cannot be written, [`DataError::Empty`] if not one pair can be read;
/// nothing is then left of the folder.
pub fn pick_a_pic(set: &PairSet, folder: &Path, on_pair: &mut dyn FnMut()) -> Result<Written, DataError> {
    let scored = (0..set.len()).any(|position| set.soft_label(position).is_some());
    let typed = (0..set.len()).any(|position| set.original_prompts(position).is_some());
    let mut columns = Vec::new();
    if scored {
        columns.push(ExtraColumn::new("soft_label", Kind::Number));
    }
    if typed {
        columns.extend([0, 1].map(|side| ExtraColumn::new(format!("original_prompt_{side}"), Kind::Text)));
    }
    let mut shards = Shards::begin(NewFolder::begin(folder)?, "data/", columns);
    let written = each_pair(set, on_pair, |_, position, images| {
        let mut extra = Vec::new();
        if scored {
            extra.push(set.soft_label(position).map_or(Value::Missing, Value::Number));
        }
        if typed {
            let prompts = set.original_prompts(position);
            let prompt =
                |side: usize| prompts.map_or(Value::Missing, |both| Value::Text(both[side].to_owned()));
            extra.extend([prompt(0), prompt(1)]);
        }
        shards.push(Row {
            images,
            labels: [1.0, 0.0],
            caption: set.caption(position).to_owned(),
            has_label: true,
            extra,
        })
    })?;
    shards.finish()?;
    Ok(written)
}
