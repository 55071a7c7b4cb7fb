//! The set itself.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use image::{ImageError, RgbImage};
use sha2::{Digest, Sha256};

use super::pixels::size_of;
use super::row::Row;
use super::{
    Container, DECODER, ImageRef, Names, Strings, Verdict, decode, decode_leased, decodes_as_ever, needed,
};
use crate::budget::DECODED;
use crate::skipped::in_words;
use crate::transform::Size;
use crate::{DataError, Images, Label, PairId, PairSource, Reason, Side, Skipped};

/// Pairs on disk or further away, whatever layout they were read from.
#[derive(Debug)]
pub struct PairSet {
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) containers: Vec<Box<dyn Container>>,
    pub(super) rows: Vec<Row>,
    pub(super) texts: Strings,
    /// Prompts as they were typed, the winner's and the loser's, of pairs whose captions are those prompts without networks.
    pub(super) originals: BTreeMap<PairId, [Box<str>; 2]>,
    /// In order of their ids.
    pub(super) skipped: Vec<Skipped>,
    pub(super) fingerprint: [u8; 32],
    /// What the fingerprint was before rows were excluded.
    pub(super) opened: [u8; 32],
}

impl PairSet {
    /// What users call it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The distinct captions, in order of first use.
    pub fn texts(&self) -> &Strings {
        &self.texts
    }

    /// Number of the caption at a position, into [`texts`](Self::texts).
    pub fn text_number(&self, position: usize) -> u32 {
        self.rows[position].caption
    }

    /// The prompts that a winner and a loser were generated from, as they were typed, where networks were named in them and the
    /// caption is without these.
    pub fn original_prompts(&self, position: usize) -> Option<[&str; 2]> {
        self.originals.get(&self.rows[position].id()).map(|both| both.each_ref().map(AsRef::as_ref))
    }

    /// Where an image is. Two images at one place are the same one.
    pub fn image_ref(&self, position: usize, side: Side) -> ImageRef {
        self.rows[position].image(side)
    }

    /// The file of an image, for people.
    pub fn file(&self, position: usize, side: Side) -> PathBuf {
        let (container, item) = self.container(position, side);
        container.place(item)
    }

    /// Whether nobody ranked the pair at a position; only in a set opened [with ties](crate::formats::OpenSettings::ties).
    pub fn is_tie(&self, position: usize) -> bool {
        self.rows[position].labels().verdict == Verdict::Tie
    }

    /// An image as it is stored: encoded.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be read.
    pub fn encoded(&self, position: usize, side: Side) -> Result<Vec<u8>, DataError> {
        let (container, item) = self.container(position, side);
        container.read(item)
    }

    /// An image as it is stored, which was seen to decode.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be read, or does not decode.
    pub fn verified(&self, position: usize, side: Side) -> Result<Vec<u8>, DataError> {
        let encoded = self.encoded(position, side)?;
        decode(&encoded).map_err(|source| self.undecoded(position, side, source))?;
        Ok(encoded)
    }

    /// The fingerprint before rows were excluded.
    pub fn opened_fingerprint(&self) -> [u8; 32] {
        self.opened
    }

    /// Excludes rows. That makes another set, unless none of them is a pair so far; one that is skipped already is from now
    /// on skipped because it is listed.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left.
    pub fn exclude(&mut self, ids: &HashSet<PairId>, detail: &str) -> Result<(), DataError> {
        let excluded = |id| Skipped { id, reason: Reason::Excluded, detail: detail.into() };
        for row in self.skipped.iter_mut().filter(|row| ids.contains(&row.id)) {
            *row = excluded(row.id);
        }
        let (n_before, mut hash) = (self.rows.len(), Sha256::new_with_prefix(self.fingerprint));
        self.rows.retain(|row| {
            let is_kept = !ids.contains(&row.id());
            if !is_kept {
                hash.update(row.id().0.to_le_bytes());
                self.skipped.push(excluded(row.id()));
            }
            is_kept
        });
        if self.rows.len() < n_before {
            self.fingerprint = hash.finalize().into();
        }
        self.skipped.sort_by_key(|row| row.id);
        self.check_not_empty()
    }

    /// Says why nothing is left, with the first few rows.
    pub(super) fn check_not_empty(&self) -> Result<(), DataError> {
        const SHOWN: usize = 5;
        let Self { path, rows, names, skipped, .. } = self;
        if !rows.is_empty() {
            return Ok(());
        }
        if skipped.is_empty() {
            return Err(DataError::Empty { path: path.clone(), reason: "it names none".into() });
        }
        let found = skipped.iter().filter(|row| !row.detail.is_empty()).take(SHOWN);
        let mut found: Vec<String> = found
            .map(|row| row.named(names.of(row.id)))
            .map(|(place, why)| format!("{place}: {why}"))
            .collect();
        if skipped.len() > SHOWN && !found.is_empty() {
            found.push("...".into());
        }
        let found = if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) };
        let reason = format!("all its rows are skipped: {}{found}", in_words(skipped));
        Err(DataError::Empty { path: path.clone(), reason })
    }

    fn undecoded(&self, position: usize, side: Side, source: ImageError) -> DataError {
        DataError::Image {
            side,
            place: self.place(self.id(position)),
            path: self.file(position, side),
            source: Box::new(source),
        }
    }

    pub(super) fn container(&self, position: usize, side: Side) -> (&dyn Container, u32) {
        let ImageRef { container, item } = self.image_ref(position, side);
        (self.containers[usize::from(container)].as_ref(), item)
    }
}

impl PairSource for PairSet {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        decode(&self.encoded(position, side)?).map_err(|source| self.undecoded(position, side, source))
    }

    fn images(&self, position: usize, sides: &[Side]) -> Result<Images, DataError> {
        let mut all = 0;
        let mut encoded = Vec::with_capacity(sides.len());
        for &side in sides {
            let bytes = self.encoded(position, side)?;
            all += needed(&bytes).map_err(|source| self.undecoded(position, side, source))?;
            encoded.push(bytes);
        }
        let lease = DECODED.take(all);
        let decoded = sides.iter().zip(&encoded).map(|(&side, bytes)| {
            decode_leased(bytes).map_err(|source| self.undecoded(position, side, source))
        });
        Ok(Images::leased(decoded.collect::<Result<_, _>>()?, lease))
    }

    fn size(&self, position: usize, side: Side) -> Option<Size> {
        size_of(&self.encoded(position, side).ok()?)
    }

    fn caption(&self, position: usize) -> &str {
        self.texts.get(self.rows[position].caption as usize)
    }

    fn id(&self, position: usize) -> PairId {
        self.rows[position].id()
    }

    fn place(&self, id: PairId) -> String {
        self.names.of(id)
    }

    fn soft_label(&self, position: usize) -> Option<f64> {
        self.rows[position].labels().soft_label
    }

    fn label(&self, position: usize) -> Option<Label> {
        match self.rows[position].labels().verdict {
            Verdict::Single(label) => Some(label),
            Verdict::Ranked | Verdict::Tie => None,
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn decoder(&self) -> Option<u32> {
        Some(DECODER)
    }

    fn decodes_as_ever(&self) -> bool {
        (0..self.len()).all(|position| {
            Side::BOTH.iter().all(|&side| {
                let (container, item) = self.container(position, side);
                container.head(item).is_some_and(|head| decodes_as_ever(&head))
            })
        })
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn winner_is_listed_first(&self, position: usize) -> Option<bool> {
        self.rows[position].labels().winner_first
    }
}
