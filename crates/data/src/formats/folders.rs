//! Two folders of images with the same names.
//!
//! Source: the layout proposed in `kohya-ss/sd-scripts` #1427: `w/` holds winners, `l/` losers, captions
//! beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tastemaker_store::{StoreError, json};

use super::files::{FilePair, FilePairs};
use crate::{DataError, PairId};

const IMAGE_EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Reads `w/` and `l/` of a folder.
///
/// Images pair up by name without extension. A caption is the trimmed text of `<name>.txt` beside the winner
/// or the loser; where both have one they must agree, for a pair is two images of one caption. A [`PairId`]
/// is the place of the name in sorted order.
///
/// # Errors
/// [`DataError::Unpaired`] naming every image without counterpart, caption, or with two; [`StoreError`] for a
/// folder or caption that cannot be read or is not UTF-8; [`DataError::Empty`] if there is no pair.
pub fn read_folders(folder: impl AsRef<Path>) -> Result<FilePairs, DataError> {
    let folder = folder.as_ref();
    let mut problems = Vec::new();
    let winners = images(&folder.join("w"), &mut problems)?;
    let mut losers = images(&folder.join("l"), &mut problems)?;

    let mut pairs = Vec::new();
    for (id, (name, winner)) in winners.into_iter().enumerate() {
        let Some(loser) = losers.remove(&name) else {
            problems.push(format!("w/{name} has no counterpart in l/"));
            continue;
        };
        match caption(&winner, &loser)? {
            Ok(caption) => {
                pairs.push(FilePair {
                    id: PairId(id as u64),
                    place: format!("pair {name}"),
                    winner,
                    loser,
                    caption,
                });
            }
            Err(problem) => problems.push(format!("{name} {problem}")),
        }
    }
    problems.extend(losers.keys().map(|name| format!("l/{name} has no counterpart in w/")));
    if problems.is_empty() {
        FilePairs::new(folder, folder, pairs, 0)
    } else {
        Err(DataError::Unpaired { path: folder.to_path_buf(), problems })
    }
}

/// The images of a folder by name without extension.
fn images(folder: &Path, problems: &mut Vec<String>) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let fail = |e| StoreError::io("read", folder, e);
    let mut images = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if !IMAGE_EXTENSIONS.contains(&extension.as_str()) {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
            problems.push(format!("{} has a name that is not UTF-8", path.display()));
            continue;
        };
        if let Some(twin) = images.insert(name.to_owned(), path.clone()) {
            problems.push(format!("{} and {} are one name twice", path.display(), twin.display()));
        }
    }
    Ok(images)
}

/// The caption of a pair, or what is wrong with it.
fn caption(winner: &Path, loser: &Path) -> Result<Result<String, &'static str>, DataError> {
    let read = |image: &Path| {
        let file = image.with_extension("txt");
        if file.is_file() { json::read_text(file).map(|text| Some(text.trim().to_owned())) } else { Ok(None) }
    };
    Ok(match (read(winner)?, read(loser)?) {
        (Some(one), Some(other)) if one != other => Err("has two different captions"),
        (Some(caption), _) | (None, Some(caption)) => Ok(caption),
        (None, None) => Err("has no caption (.txt) in w/ or l/"),
    })
}
