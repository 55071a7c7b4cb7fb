//! Pairs in tar files, as the `webdataset` package reads them.
//!
//! Members that follow each other and share their folder and name up to its first dot are a row, the rest of their names are
//! columns: `0001.jpg_0.jpg`, `0001.jpg_1.jpg`, `0001.label_0.txt`, `0001.label_1.txt`, `0001.original_prompt.txt`.
//!
//! Source: the ORPO example of diffusers, `train_diffusion_orpo_sdxl_lora_wds.py`, and webdataset's `group_by_keys`.

mod members;
mod sample;

use tastemaker_store::tree::{Entry, Location};

use self::members::{Images, Members};
use self::sample::Sample;
use super::OpenSettings;
use super::table::{Detect, TableReader};
use crate::DataError;
use crate::set::PairSet;

/// Whether a file is a shard by its name, and where it lies unless it was named.
pub fn is_tar(entry: &Entry, named: bool) -> bool {
    (named || !entry.path.contains('/') || entry.path.starts_with("data/")) && entry.path.ends_with(".tar")
}

/// Reads the tar files among files, in order of their names.
///
/// Columns follow a convention or the mapping of `settings`; the first row that does says which. Images are read where they
/// lie, nothing is unpacked. A [`PairId`](crate::PairId) is the row's number through all files.
///
/// # Errors
/// [`StoreError`](tastemaker_store::StoreError) naming the file and the member before for one that is cut off or damaged, or
/// has members that are links or lie outside; [`DataError::Columns`] if no row follows a convention; [`DataError::Empty`] if
/// no pair is left.
pub fn read_webdataset(
    location: &Location,
    entries: &[Entry],
    settings: &OpenSettings,
) -> Result<PairSet, DataError> {
    let mut table = TableReader::new(location, location.typed(), settings);
    let mut images = Images::new(location.tree().clone());
    let mut detect = Detect::new(settings, location.typed());
    for entry in entries.iter().filter(|entry| is_tar(entry, location.names_files() || entries.len() == 1)) {
        let blob = location.tree().open(&entry.path)?;
        table.archive(&entry.path);
        let file = images.file(&entry.path);
        Members::new(blob.as_ref()).for_each(|members| {
            detect.add(&mut table, Sample::read(members, blob.as_ref(), file, &mut images))
        })?;
    }
    detect.finish()?;
    table.finish(Some(Box::new(images)))
}
