//! Pairs that cannot be read, found out before a run without a cache begins: it then trains on the same pairs in the same order as
//! one with a cache.
//!
//! What is found is kept in files of [`PAIRS_PER_LIST`] pairs below the root of caches, so that it is found out once for a set, and
//! processes share the work.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tastemaker_data::buckets::BucketResolutions;
use tastemaker_data::ordered::in_order;
use tastemaker_data::{PairSource, Side};
use tastemaker_run::{Event, Read};
use tastemaker_store::atomic;
use tastemaker_store::checksum::hex;
use tastemaker_store::sealed::{self, Sealed};

use super::cache::{Encoder, OnEvent};
use super::{SkippedPair, decode_pair};
use crate::TrainError;
use crate::distributed::ProcessGroup;

/// Pairs whose readability is in one file.
const PAIRS_PER_LIST: usize = 4096;

/// What a file says. Serialized field by field, so names are a format.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    /// Fingerprint of the set.
    pairs: String,
    /// The first position.
    first: usize,
    /// How many positions.
    n_pairs: usize,
    /// Positions that cannot be read, and why.
    unreadable: Vec<(usize, String)>,
}

/// The pairs of a source that cannot be read, with their positions.
///
/// # Errors
/// [`TrainError::Data`] if the source cannot be reached, [`TrainError::Torch`] if a rank is lost, and those of `on_event`.
pub(crate) fn unreadable(
    encoder: &Encoder<'_>,
    ranks: ProcessGroup<'_>,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<(usize, SkippedPair)>, TrainError> {
    let (source, settings) = (encoder.source, &encoder.settings);
    let fingerprint = hex(&source.fingerprint());
    let folder = settings.cache_root.join(format!("readable-{}", &fingerprint[..16]));
    let lists = Lists { source, folder, fingerprint, n_workers: settings.n_workers };
    let n_lists = source.len().div_ceil(PAIRS_PER_LIST);
    let rank = ranks.rank();
    let own = (rank.rank..n_lists).step_by(rank.world_size.max(1));
    let missing: Vec<usize> = own.filter(|&number| lists.stored(number).is_none()).collect();
    let n_pairs = missing.iter().map(|&number| lists.range(number).len() as u64).sum();
    let mut n_read = 0;
    let mut on_pair = |event: &mut OnEvent<'_>| {
        n_read += 1;
        event(&Event::Read(Read { n_done: n_read, n_pairs }))
    };
    for number in missing {
        let list = lists.find(number, &mut || on_pair(on_event))?;
        // Where it cannot be kept it is found out again.
        let _ = atomic::create_folder(&lists.folder).and_then(|()| sealed::write(lists.path(number), &list));
    }
    ranks.barrier()?;
    let mut found = Vec::new();
    for number in 0..n_lists {
        let list = match lists.stored(number) {
            Some(list) => list,
            None => lists.find(number, &mut || Ok(()))?,
        };
        found.extend(list.unreadable.into_iter().map(|(position, detail)| {
            let id = source.id(position);
            (position, SkippedPair { id, place: source.place(id), detail })
        }));
    }
    Ok(found)
}

struct Lists<'a> {
    source: &'a dyn PairSource,
    folder: PathBuf,
    fingerprint: String,
    n_workers: usize,
}

impl Lists<'_> {
    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("pairs-{number:05}.json"))
    }

    fn range(&self, number: usize) -> Range<usize> {
        let first = number * PAIRS_PER_LIST;
        first..(first + PAIRS_PER_LIST).min(self.source.len())
    }

    /// The list that is on disk, if it is of this set and as it was written; one that is not is made again.
    fn stored(&self, number: usize) -> Option<List> {
        let Sealed { value, is_sealed } = sealed::read(self.path(number)).ok()?;
        let list: List = serde_json::from_value(value).ok().filter(|_| is_sealed)?;
        let range = self.range(number);
        let wanted = self.list(number, list.unreadable.clone());
        (list == wanted && list.unreadable.iter().all(|(position, _)| range.contains(position)))
            .then_some(list)
    }

    fn list(&self, number: usize, unreadable: Vec<(usize, String)>) -> List {
        let range = self.range(number);
        let pairs = self.fingerprint.clone();
        List { format: 1, pairs, first: range.start, n_pairs: range.len(), unreadable }
    }

    /// Decodes both images of every pair.
    fn find(
        &self,
        number: usize,
        on_pair: &mut dyn FnMut() -> Result<(), TrainError>,
    ) -> Result<List, TrainError> {
        // Whether an image can be read does not depend on what it is resized to.
        let resolutions = BucketResolutions { resolution: 64, buckets: None };
        let work = |position: usize| decode_pair(self.source, position, &resolutions, &Side::BOTH).map(drop);
        let mut unreadable = Vec::new();
        in_order(self.range(number), self.n_workers, 2 * self.n_workers.max(1), work, |position, read| {
            if let Err(error) = read {
                let detail = error.skips().ok_or(error)?;
                unreadable.push((position, detail));
            }
            on_pair()
        })?;
        Ok(self.list(number, unreadable))
    }
}
