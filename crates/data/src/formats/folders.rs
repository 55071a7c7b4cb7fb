//! Two folders of images with the same names.
//!
//! Source: the layout proposed in `kohya-ss/sd-scripts` #1427: `w/` holds winners, `l/` losers, captions
//! beside them.

use tastemaker_store::tree::{Entry, Location};

use super::by_name::{OneSide, pair_up};
use crate::DataError;
use crate::set::PairSet;

/// Reads `w/` and `l/` of a folder; images pair up by name without extension, as [`pair_up`] does.
///
/// # Errors
/// As [`pair_up`].
pub fn read_folders(location: &Location, entries: &[Entry]) -> Result<PairSet, DataError> {
    let side = |prefix: &str| {
        let mut side = OneSide::default();
        for entry in entries {
            if let Some(name) = entry.path.strip_prefix(prefix).filter(|name| !name.contains('/')) {
                side.add(name, entry);
            }
        }
        side
    };
    pair_up(location, &side("w/"), &side("l/"), [|name| format!("w/{name}"), |name| format!("l/{name}")])
}
