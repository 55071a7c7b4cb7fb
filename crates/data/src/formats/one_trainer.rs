//! Images and their rejected counterparts side by side.
//!
//! Source: the names discussed in `Nerogar/OneTrainer` #1403: `sample.png` and `sample-rejectedlabel.png`, in the manner of
//! that tool's `-masklabel` and `-condlabel`. The proposal's own two folders of the same names are
//! [`read_folders`](super::folders::read_folders)'s layout.

use tastemaker_store::tree::{Entry, FileKind, Location};

use super::by_name::{OneSide, pair_up};
use crate::DataError;
use crate::set::PairSet;

/// What the name of a loser ends in, before the extension.
const SUFFIXES: [&str; 2] = ["-rejectedlabel", "-rejected"];

/// Other images of that tool, which are no winners.
const OTHERS: [&str; 2] = ["-masklabel", "-condlabel"];

/// Whether a file is a loser by its name.
pub fn is_rejected(entry: &Entry) -> bool {
    let Some((name, extension)) = entry.path.rsplit_once('.') else { return false };
    let is_image = matches!(FileKind::of(extension), FileKind::Image | FileKind::OtherImage);
    is_image && SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Reads a folder and those below; `<name>-rejectedlabel` or `<name>-rejected` loses against `<name>` of the same folder, and
/// the caption is `<name>.txt` or `<name>.caption`. Pairs up as [`pair_up`] does.
///
/// # Errors
/// As [`pair_up`].
pub fn read_one_trainer(location: &Location, entries: &[Entry]) -> Result<PairSet, DataError> {
    let (mut winners, mut losers) = (OneSide::default(), OneSide::default());
    for entry in entries {
        let Some((name, extension)) = entry.path.rsplit_once('.') else { continue };
        if let Some(name) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) {
            losers.add_as(name, extension, entry);
        } else if !OTHERS.iter().any(|suffix| name.ends_with(suffix)) {
            winners.add_as(name, extension, entry);
        }
    }
    pair_up(location, &winners, &losers, [str::to_owned, |name| format!("{name}-rejectedlabel")])
}
