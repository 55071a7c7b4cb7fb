//! Images that pair up by the names of their files, with captions beside them.

use std::collections::{BTreeMap, BTreeSet};

use tastemaker_store::tree::{Entry, FileKind, Location, READ_KINDS, Tree, read_text};

use super::refusal::{Refusal, Skip};
use crate::set::{Builder, Files, ImageRef, Labels, MAX_CAPTION_BYTES, Names, PairSet, Strings};
use crate::{DataError, PairId, Reason};

/// The winners or the losers, by the name that pairs them up.
#[derive(Default)]
pub struct OneSide<'a> {
    images: BTreeMap<&'a str, Vec<&'a Entry>>,
    /// Images of formats that are not read.
    others: BTreeMap<&'a str, &'a Entry>,
    /// With the place of each one's extension.
    captions: BTreeMap<&'a str, (usize, &'a Entry)>,
}

impl<'a> OneSide<'a> {
    /// Adds a file if it is an image or a caption. `name` is its own, with the extension.
    pub fn add(&mut self, name: &'a str, entry: &'a Entry) {
        let Some((name, extension)) = name.rsplit_once('.') else { return };
        self.add_as(name, extension, entry);
    }

    /// [`add`](Self::add) under a name of another form.
    pub fn add_as(&mut self, name: &'a str, extension: &str, entry: &'a Entry) {
        match FileKind::of(extension) {
            FileKind::Image => self.images.entry(name).or_default().push(entry),
            FileKind::OtherImage => drop(self.others.insert(name, entry)),
            FileKind::Caption(place) => {
                let known = self.captions.entry(name).or_insert((place, entry));
                if place < known.0 {
                    *known = (place, entry);
                }
            }
            FileKind::Other => {}
        }
    }

    /// The one image of this name; `wanted` says where it should be.
    fn image(&self, name: &str, wanted: impl Fn(&str) -> String) -> Result<&'a Entry, Skip> {
        match (self.images.get(name).map(Vec::as_slice), self.others.get(name)) {
            (Some([image]), _) => Ok(image),
            (Some(images), _) => {
                let paths: Vec<&str> = images.iter().map(|image| image.path.as_str()).collect();
                Err((Reason::NoCounterpart, format!("one name {} times: {}", images.len(), paths.join(", "))))
            }
            (None, Some(other)) => {
                Err((Reason::OtherFormat, format!("{} is not read; wanted {READ_KINDS}", other.path)))
            }
            (None, None) => Err((Reason::NoCounterpart, format!("there is no {}", wanted(name)))),
        }
    }
}

/// Pairs up winners and losers; `wanted` says how the file of a name is called on each side.
///
/// A caption is the trimmed text of the `.txt`, else the `.caption`, beside the winner or the loser; where both have one they must
/// agree, for a pair is two images of one caption. Without one, the images are asked for their prompt. A [`PairId`] is the place
/// of the name in sorted order, names without an image that is read after all others. What has no counterpart, no caption or two,
/// or one that is not UTF-8, is skipped by name.
///
/// # Errors
/// [`DataError`] for a caption that cannot be had at all; [`DataError::Empty`] if there is no pair.
pub fn pair_up(
    location: &Location,
    winners: &OneSide<'_>,
    losers: &OneSide<'_>,
    wanted: [fn(&str) -> String; 2],
) -> Result<PairSet, DataError> {
    let mut builder = Builder::new(location.typed());
    let mut files = Files::new(location.tree().clone());
    let names: BTreeSet<&str> = winners.images.keys().chain(losers.images.keys()).copied().collect();
    let others: BTreeSet<&str> = winners.others.keys().chain(losers.others.keys()).copied().collect();
    let names = names.iter().chain(others.difference(&names)).copied();
    let mut called = Strings::default();
    for (id, name) in (0..).map(PairId).zip(names) {
        called.push(name);
        let (winner, loser) = match (winners.image(name, wanted[0]), losers.image(name, wanted[1])) {
            (Ok(winner), Ok(loser)) => (winner, loser),
            (Err((reason, problem)), _) | (_, Err((reason, problem))) => {
                builder.skip(id, reason, &problem);
                continue;
            }
        };
        let mut image = |image: &Entry| ImageRef { container: 0, item: files.add(&image.path, image.bytes) };
        let images = [image(winner), image(loser)];
        let caption = caption(
            location.tree().as_ref(),
            winners.captions.get(name).map(|(_, entry)| *entry),
            losers.captions.get(name).map(|(_, entry)| *entry),
        );
        match caption {
            Ok(caption) => builder.keep(id, images, caption.as_deref(), Labels::default()),
            Err(refusal) => {
                let (reason, problem) = refusal.skip()?;
                builder.skip(id, reason, &problem);
            }
        }
    }
    builder.container(Box::new(files));
    builder.finish(Names::Pairs(called))
}

/// The caption of a pair if there is one, or what is wrong with it.
pub fn caption(
    tree: &dyn Tree,
    winner: Option<&Entry>,
    loser: Option<&Entry>,
) -> Result<Option<String>, Refusal> {
    let read = |file: &Entry| -> Result<String, Refusal> {
        let text = tree.open(&file.path).and_then(|blob| read_text(blob.as_ref(), MAX_CAPTION_BYTES as u64));
        Ok(text.map_err(|error| Refusal::of_row(error.into()))?.trim().to_owned())
    };
    let files: Vec<&Entry> = [winner, loser].into_iter().flatten().collect();
    if let Some(long) = files.iter().find(|file| file.bytes > MAX_CAPTION_BYTES as u64) {
        let detail = format!("{} of {} bytes; wanted at most {MAX_CAPTION_BYTES}", long.path, long.bytes);
        return Err(Refusal::Row((Reason::LongCaption, detail)));
    }
    let mut texts = files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if let [one, other] = texts.as_slice()
        && one != other
    {
        let detail = format!("{one:?} of the winner, {other:?} of the loser");
        return Err(Refusal::Row((Reason::CaptionsDiffer, detail)));
    }
    Ok(texts.pop())
}
