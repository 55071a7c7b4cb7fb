//! Taking up rows one after the other.

use std::mem;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::captions::Interned;
use super::{Container, PairSet, Spot, Strings};
use crate::skipped::in_words;
use crate::{DataError, Label, PairId, Reason, Skipped};

/// The longest caption; models read the first few hundred bytes.
pub const MAX_CAPTION_BYTES: usize = 64 << 10;

/// Rows skipped that keep what was found: enough to see what is wrong with a set.
const DETAILS: usize = 10_000;

/// Details are sentences; whatever was found in a row is cut to this many characters.
const DETAIL_LENGTH: usize = 300;

/// How a set calls its rows.
#[derive(Debug, Clone)]
pub enum Names {
    /// `row 1`, `row 2`, ...
    Rows,
    /// The same, counted within each of several files: each file's name with the number of rows in the files before it.
    RowsOf(Vec<(String, u64)>),
    /// By names of their own: `pair cat`.
    Pairs(Strings),
    /// Rows that each hold several pairs: `row 1, pair 2`. The id of each row's first pair.
    PairsOfRows(Vec<u64>),
}

impl Names {
    pub(super) fn of(&self, id: PairId) -> String {
        match self {
            Self::Rows => format!("row {}", id.0 + 1),
            Self::RowsOf(files) => {
                let after = files.partition_point(|(_, before)| *before <= id.0);
                match after.checked_sub(1).map(|file| &files[file]) {
                    Some((name, before)) => format!("row {} of {name}", id.0 - before + 1),
                    None => format!("row {}", id.0 + 1),
                }
            }
            Self::Pairs(names) if (id.0 as usize) < names.len() => {
                format!("pair {}", names.get(id.0 as usize))
            }
            Self::Pairs(_) => format!("pair {id}"),
            Self::PairsOfRows(starts) => {
                let row = starts.partition_point(|start| *start <= id.0);
                let before = row.checked_sub(1).map_or(0, |row| starts[row]);
                format!("row {row}, pair {}", id.0 - before + 1)
            }
        }
    }
}

/// What is known of a row besides its images and its caption.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    listed_first: Option<bool>,
    soft_label: Option<f32>,
    label: Option<Label>,
    tie: bool,
}

/// Takes up the rows of a set, in order of their ids.
#[derive(Debug)]
pub struct Builder {
    path: PathBuf,
    containers: Vec<Box<dyn Container>>,
    ids: Vec<u64>,
    sides: Vec<[Spot; 2]>,
    captions: Vec<u32>,
    texts: Interned,
    /// Of each pair, where its layout lists the two images in an order.
    listed_first: Vec<Option<bool>>,
    /// Of each pair, NaN where it has none; empty as long as no pair has one.
    soft_labels: Vec<f32>,
    /// Of each entry, empty in a set of pairs.
    labels: Vec<Label>,
    /// Ids of pairs that nobody ranked, in order.
    ties: Vec<u64>,
    next: Said,
    skipped: Vec<Skipped>,
}

impl Builder {
    /// For a set that users call `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            containers: Vec::new(),
            ids: Vec::new(),
            sides: Vec::new(),
            captions: Vec::new(),
            texts: Interned::default(),
            listed_first: Vec::new(),
            soft_labels: Vec::new(),
            labels: Vec::new(),
            ties: Vec::new(),
            next: Said::default(),
            skipped: Vec::new(),
        }
    }

    /// The number that a container will have which is handed over at the end; for spots.
    pub fn next_container(&self) -> u32 {
        self.containers.len() as u32
    }

    /// Takes over what holds images, and returns its number.
    pub fn container(&mut self, container: Box<dyn Container>) -> u32 {
        self.containers.push(container);
        (self.containers.len() - 1) as u32
    }

    /// Says of the next row whether the winner is listed before the loser, where a layout has such an order.
    pub fn listed_first(&mut self, winner_is_first: bool) {
        self.next.listed_first = Some(winner_is_first);
    }

    /// Gives the next row a soft label.
    pub fn soft_label(&mut self, soft_label: f64) {
        self.next.soft_label = Some(soft_label as f32);
    }

    /// Says that the next row is a single image, which is both of its sides. Then all rows of the set are.
    pub fn label(&mut self, label: Label) {
        self.next.label = Some(label);
    }

    /// Says that nobody ranked the images of the next row.
    pub fn tie(&mut self) {
        self.next.tie = true;
    }

    /// Takes up a pair.
    pub fn keep(&mut self, id: PairId, winner: Spot, loser: Spot, caption: &str) {
        if caption.len() > MAX_CAPTION_BYTES {
            let detail = format!("{} bytes; wanted at most {MAX_CAPTION_BYTES}", caption.len());
            return self.skip(id, Reason::LongCaption, &detail);
        }
        let caption = self.texts.number(caption);
        self.push(id, [winner, loser], caption);
    }

    /// Takes up a pair that has no caption beside it: at the end its images are asked for the prompt they were generated
    /// from.
    pub fn keep_without_caption(&mut self, id: PairId, winner: Spot, loser: Spot) {
        self.push(id, [winner, loser], UNKNOWN);
    }

    fn push(&mut self, id: PairId, sides: [Spot; 2], caption: u32) {
        let Said { listed_first, soft_label, label, tie } = mem::take(&mut self.next);
        self.ties.extend(tie.then_some(id.0));
        if soft_label.is_some() || !self.soft_labels.is_empty() {
            // Rows before the first that has one have none.
            self.soft_labels.resize(self.ids.len(), f32::NAN);
            self.soft_labels.push(soft_label.unwrap_or(f32::NAN));
        }
        self.ids.push(id.0);
        self.sides.push(sides);
        self.captions.push(caption);
        self.listed_first.push(listed_first);
        self.labels.extend(label);
    }

    /// Names a row that is no pair. `detail` says what was found.
    pub fn skip(&mut self, id: PairId, reason: Reason, detail: &str) {
        self.next = Said::default();
        let detail = if self.skipped.len() < DETAILS { shortened(detail) } else { Box::default() };
        self.skipped.push(Skipped { id, reason, detail });
    }

    /// The set.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left, [`DataError`] if an image that may hold its prompt cannot be read.
    pub fn finish(mut self, names: Names) -> Result<PairSet, DataError> {
        self.ask_images()?;
        let Self { path, containers, mut ids, mut sides, mut captions, texts, .. } = self;
        let (mut listed_first, mut skipped) = (self.listed_first, self.skipped);
        let (mut soft_labels, mut labels, ties) = (self.soft_labels, self.labels, self.ties);
        skipped.sort_by_key(|row| row.id);
        if ids.is_empty() {
            return Err(empty(path, &names, &skipped));
        }
        let texts = texts.into_strings();
        ids.shrink_to_fit();
        sides.shrink_to_fit();
        captions.shrink_to_fit();
        listed_first.shrink_to_fit();
        soft_labels.shrink_to_fit();
        labels.shrink_to_fit();
        let mut hash = Sha256::new();
        for ((id, sides), caption) in ids.iter().zip(&sides).zip(&captions) {
            hash.update(id.to_le_bytes());
            let caption = texts.get(*caption as usize);
            hash.update((caption.len() as u64).to_le_bytes());
            hash.update(caption);
            for Spot { container, item } in sides {
                let (name, size) = containers[*container as usize].identity(*item);
                hash.update((name.len() as u64).to_le_bytes());
                hash.update(name.as_bytes());
                hash.update(size.to_le_bytes());
            }
        }
        labels.iter().for_each(|label| hash.update([*label as u8]));
        let fingerprint = hash.finalize().into();
        Ok(PairSet {
            path,
            names,
            containers,
            ids,
            sides,
            captions,
            texts,
            listed_first,
            soft_labels,
            labels,
            ties,
            skipped,
            fingerprint,
        })
    }
}

/// Stands for a caption that is not known yet.
const UNKNOWN: u32 = u32::MAX;

impl Builder {
    /// Takes the missing captions from the images, and skips what then still has none.
    fn ask_images(&mut self) -> Result<(), DataError> {
        if !self.captions.contains(&UNKNOWN) {
            return Ok(());
        }
        let rows = mem::take(&mut self.ids).into_iter().zip(mem::take(&mut self.sides));
        let rows = rows.zip(mem::take(&mut self.captions)).zip(mem::take(&mut self.listed_first));
        let (soft_labels, labels) = (mem::take(&mut self.soft_labels), mem::take(&mut self.labels));
        let ties = mem::take(&mut self.ties);
        for (row, (((id, [winner, loser]), caption), listed_first)) in rows.enumerate() {
            let soft_label = soft_labels.get(row).copied().filter(|soft_label| !soft_label.is_nan());
            let tie = ties.binary_search(&id).is_ok();
            self.next = Said { listed_first, soft_label, label: labels.get(row).copied(), tie };
            if caption != UNKNOWN {
                self.push(PairId(id), [winner, loser], caption);
                continue;
            }
            let ask = |spot: Spot| self.containers[spot.container as usize].prompt(spot.item);
            match (ask(winner)?, ask(loser)?) {
                (Some(one), Some(other)) if one == other => self.keep(PairId(id), winner, loser, &one),
                (Some(one), Some(other)) => {
                    let detail = format!("{one:?} generated the winner, {other:?} the loser");
                    self.skip(PairId(id), Reason::CaptionsDiffer, &detail);
                }
                _ => {
                    let detail = "no caption, and no prompt in both images";
                    self.skip(PairId(id), Reason::NoCaption, detail);
                }
            }
        }
        Ok(())
    }
}

/// Why nothing is left, with the first few rows.
pub(super) fn empty(path: PathBuf, names: &Names, skipped: &[Skipped]) -> DataError {
    const SHOWN: usize = 5;
    if skipped.is_empty() {
        return DataError::Empty { path, reason: "it names none".into() };
    }
    let mut rows: Vec<String> = skipped
        .iter()
        .filter(|row| !row.detail.is_empty())
        .take(SHOWN)
        .map(|row| format!("{}: {}", names.of(row.id), row.detail))
        .collect();
    if skipped.len() > SHOWN && !rows.is_empty() {
        rows.push("...".into());
    }
    let rows = if rows.is_empty() { String::new() } else { format!(" ({})", rows.join("; ")) };
    DataError::Empty { path, reason: format!("all its rows are skipped: {}{rows}", in_words(skipped)) }
}

fn shortened(detail: &str) -> Box<str> {
    match detail.char_indices().nth(DETAIL_LENGTH) {
        Some((end, _)) => format!("{}...", &detail[..end]).into(),
        None => detail.into(),
    }
}
