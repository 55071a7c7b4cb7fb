//! Adding rows one after the other.

use std::collections::BTreeMap;
use std::mem;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::captions::Interned;
use super::row::Row;
use super::{Container, ImagePrompt, ImageRef, Labels, Names, PairSet, Verdict};
use crate::{DataError, PairId, PairSource, Reason, Side, Skipped};

/// The longest caption; models read the first few hundred bytes.
pub const MAX_CAPTION_BYTES: usize = 64 << 10;

/// What all captions of a set take together: a few kilobytes of a table can hold many long ones.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Skipped rows that keep what was found: enough to see what is wrong with a set.
const DETAILS: usize = 10_000;

/// Details are sentences; whatever was found in a row is cut to this many characters.
const DETAIL_LENGTH: usize = 300;

/// Stands for a caption that is not known yet.
const UNKNOWN: u32 = u32::MAX;

/// Makes a set from its rows, which come in order of their ids.
#[derive(Debug)]
pub struct Builder {
    path: PathBuf,
    containers: Vec<Box<dyn Container>>,
    rows: Vec<Row>,
    texts: Interned,
    skipped: Vec<Skipped>,
    originals: BTreeMap<PairId, [Box<str>; 2]>,
    max_text: usize,
}

impl Builder {
    /// For a set that users call `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            containers: Vec::new(),
            rows: Vec::new(),
            texts: Interned::default(),
            skipped: Vec::new(),
            originals: BTreeMap::new(),
            max_text: MAX_TEXT_BYTES,
        }
    }

    /// Adds what holds images. The first container has number 0, the next one 1.
    pub fn container(&mut self, container: Box<dyn Container>) {
        self.containers.push(container);
    }

    /// Adds a row: winner and loser, and what both show. Without a caption the images are asked at the end for the prompt they
    /// were generated from.
    pub fn keep(&mut self, id: PairId, images: [ImageRef; 2], caption: Option<&str>, labels: Labels) {
        let caption = match caption {
            Some(caption) if caption.len() > MAX_CAPTION_BYTES => {
                let detail = format!("{} bytes; wanted at most {MAX_CAPTION_BYTES}", caption.len());
                return self.skip(id, Reason::LongCaption, &detail);
            }
            Some(caption) if self.texts.bytes() + caption.len() > self.max_text => {
                let detail = format!("the set's captions take more than {} bytes", self.max_text);
                return self.skip(id, Reason::LongCaption, &detail);
            }
            Some(caption) => self.texts.number(caption),
            None => UNKNOWN,
        };
        self.rows.push(Row::new(id, images, caption, labels));
    }

    /// Adds the prompts of a row, the winner's and the loser's, as they were typed.
    pub fn original(&mut self, id: PairId, prompts: [Box<str>; 2]) {
        self.originals.insert(id, prompts);
    }

    /// Names a row that is no pair. `detail` says what was found.
    pub fn skip(&mut self, id: PairId, reason: Reason, detail: &str) {
        let detail = if self.skipped.len() < DETAILS { shortened(detail) } else { Box::default() };
        self.skipped.push(Skipped { id, reason, detail });
    }

    /// The set.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left, [`DataError`] if an image that may hold its prompt cannot be read.
    pub fn finish(mut self, names: Names) -> Result<PairSet, DataError> {
        self.ask_images()?;
        let Self { path, containers, mut rows, texts, mut skipped, originals, .. } = self;
        skipped.sort_by_key(|row| row.id);
        rows.shrink_to_fit();
        let texts = texts.into_strings();
        let none = [0; 32];
        let mut set = PairSet {
            path,
            names,
            containers,
            rows,
            texts,
            originals,
            skipped,
            fingerprint: none,
            opened: none,
        };
        set.check_not_empty()?;
        set.fingerprint = fingerprint(&set);
        set.opened = set.fingerprint;
        Ok(set)
    }

    /// Takes the missing captions from the images, and skips what then still has none.
    fn ask_images(&mut self) -> Result<(), DataError> {
        if self.rows.iter().all(|row| row.caption != UNKNOWN) {
            return Ok(());
        }
        for row in mem::take(&mut self.rows) {
            if row.caption != UNKNOWN {
                self.rows.push(row);
                continue;
            }
            let (id, images) = (row.id(), Side::BOTH.map(|side| row.image(side)));
            let ask = |image: ImageRef| self.containers[usize::from(image.container)].prompt(image.item);
            let (one, other) = match ask(images[0]).and_then(|one| Ok((one, ask(images[1])?))) {
                Ok((Some(one), Some(other))) => (one, other),
                Ok(_) => {
                    self.skip(id, Reason::NoCaption, "no caption, and no prompt in both images");
                    continue;
                }
                Err(error) => match error.skips() {
                    Some(problem) => {
                        self.skip(id, Reason::BadImage, &problem);
                        continue;
                    }
                    None => return Err(error),
                },
            };
            if !one.agrees(&other) {
                let detail = format!("{:?} generated the winner, {:?} the loser", one.text, other.text);
                self.skip(id, Reason::CaptionsDiffer, &detail);
                continue;
            }
            self.keep(id, images, Some(&one.text), row.labels());
            if one.original.is_some() || other.original.is_some() {
                let typed = |prompt: ImagePrompt| prompt.original.unwrap_or(prompt.text).into();
                self.original(id, [typed(one), typed(other)]);
            }
        }
        Ok(())
    }
}

/// SHA-256 over the rows: ids, captions, names and sizes of images, and what was said about single ones.
fn fingerprint(set: &PairSet) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (position, row) in set.rows.iter().enumerate() {
        hash.update(row.id().0.to_le_bytes());
        let caption = set.caption(position);
        hash.update((caption.len() as u64).to_le_bytes());
        hash.update(caption);
        for side in Side::BOTH {
            let (container, item) = set.container(position, side);
            let (name, size) = container.identity(item);
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(size.to_le_bytes());
        }
    }
    for row in &set.rows {
        if let Verdict::Single(label) = row.labels().verdict {
            hash.update([label as u8]);
        }
    }
    hash.finalize().into()
}

fn shortened(detail: &str) -> Box<str> {
    match detail.char_indices().nth(DETAIL_LENGTH) {
        Some((end, _)) => format!("{}...", &detail[..end]).into(),
        None => detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_beyond_what_a_set_may_hold_are_skipped_by_name() {
        let mut builder = Builder { max_text: 10, ..Builder::new(Path::new("set")) };
        let image = ImageRef { container: 0, item: 0 };
        for (row, caption) in ["a fox", "a fox", "an owl, large", "b"].into_iter().enumerate() {
            builder.keep(PairId(row as u64), [image, image], Some(caption), Labels::default());
        }
        assert_eq!(builder.rows.len(), 3);
        let [Skipped { id, reason, detail }] = builder.skipped.as_slice() else { panic!("one row") };
        assert_eq!(
            (*id, *reason, &**detail),
            (PairId(2), Reason::LongCaption, "the set's captions take more than 10 bytes")
        );
    }
}
