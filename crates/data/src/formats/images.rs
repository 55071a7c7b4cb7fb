//! A folder of images that people like, with captions beside them.
//!
//! Source: the folders of `kohya-ss/sd-scripts`, also those called `10_name`, whose number of repeats is not read.

use std::collections::BTreeMap;

use tastemaker_store::tree::{Entry, FileKind, Location};

use super::OpenSettings;
use super::by_name::caption;
use super::table::liked;
use crate::set::{Builder, Files, ImageRef, Names, PairSet, Strings};
use crate::{DataError, PairId};

/// Whether an image has a caption beside it.
pub fn has_caption(entries: &[Entry]) -> bool {
    let (images, captions) = sorted(entries);
    captions.keys().any(|name| images.contains_key(name))
}

/// Images, and files of captions, by their names without the extension.
type ByName<'a> = BTreeMap<&'a str, &'a Entry>;

fn sorted(entries: &[Entry]) -> (ByName<'_>, ByName<'_>) {
    let (mut images, mut captions) = (ByName::new(), BTreeMap::<&str, (usize, &Entry)>::new());
    for entry in entries {
        let Some((name, extension)) = entry.path.rsplit_once('.') else { continue };
        match FileKind::of(extension) {
            FileKind::Image => drop(images.entry(name).or_insert(entry)),
            FileKind::Caption(place) if captions.get(name).is_none_or(|(known, _)| place < *known) => {
                captions.insert(name, (place, entry));
            }
            _ => {}
        }
    }
    (images, captions.into_iter().map(|(name, (_, entry))| (name, entry)).collect())
}

/// Reads every image of a folder and those below as one that people like. Its caption is the trimmed text of the `.txt`, else the
/// `.caption`, beside it, else what the folder is called after its number of repeats, else the prompt in the image. A [`PairId`] is the
/// place of the name in sorted order.
///
/// # Errors
/// [`DataError::SingleImages`] for a method of pairs; [`DataError`] for a caption that cannot be read.
pub fn read_images(
    location: &Location,
    entries: &[Entry],
    settings: &OpenSettings,
) -> Result<PairSet, DataError> {
    if !settings.unpaired && !settings.liked {
        return Err(DataError::SingleImages { path: location.typed().to_path_buf() });
    }
    let (images, captions) = sorted(entries);
    let mut builder = Builder::new(location.typed());
    let mut files = Files::new(location.tree().clone());
    let mut called = Strings::default();
    for (id, (name, entry)) in (0..).map(PairId).zip(images) {
        called.push(&entry.path);
        let image = ImageRef { container: 0, item: files.add(&entry.path, entry.bytes) };
        match caption(location.tree().as_ref(), captions.get(name).copied(), None) {
            Ok(found) => {
                let found = found.or_else(|| of_folder(name).map(str::to_owned));
                builder.keep(id, [image, image], found.as_deref(), liked(settings.unpaired));
            }
            Err(refusal) => {
                let (reason, problem) = refusal.skip()?;
                builder.skip(id, reason, &problem);
            }
        }
    }
    builder.container(Box::new(files));
    builder.finish(Names::Pairs(called))
}

/// What a folder such as `10_red fox` says about its images.
fn of_folder(name: &str) -> Option<&str> {
    let folder = name.rsplit('/').nth(1)?;
    let (repeats, caption) = folder.split_once('_')?;
    repeats.parse::<u32>().is_ok().then_some(caption.trim()).filter(|caption| !caption.is_empty())
}
