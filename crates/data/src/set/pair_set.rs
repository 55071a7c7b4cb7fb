//! The set itself.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::RgbImage;
use sha2::{Digest, Sha256};

use super::builder::empty;
use super::image::size_of;
use super::{Container, Names, Spot, Strings, decode};
use crate::transform::Size;
use crate::{DataError, Label, PairId, PairSource, Reason, Side, Skipped};

/// Pairs on disk or further away, whatever layout they were read from.
#[derive(Debug)]
pub struct PairSet {
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) containers: Vec<Box<dyn Container>>,
    pub(super) ids: Vec<u64>,
    pub(super) sides: Vec<[Spot; 2]>,
    pub(super) captions: Vec<u32>,
    pub(super) texts: Strings,
    /// Of each pair, or empty in a layout without an order.
    pub(super) listed_first: Vec<Option<bool>>,
    /// Of each pair, NaN where it has none; empty where no pair has one.
    pub(super) soft_labels: Vec<f32>,
    /// Of each entry, empty in a set of pairs.
    pub(super) labels: Vec<Label>,
    /// Ids of pairs that nobody ranked, in order; those skipped later among them.
    pub(super) ties: Vec<u64>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) fingerprint: [u8; 32],
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
        self.captions[position]
    }

    /// Where the images of a pair are.
    pub fn spots(&self, position: usize) -> [Spot; 2] {
        self.sides[position]
    }

    /// The file of an image, for people.
    pub fn file(&self, position: usize, side: Side) -> PathBuf {
        let (container, item) = self.container(position, side);
        container.place(item)
    }

    /// Whether nobody ranked the pair at a position; only in a set opened [with ties](crate::formats::OpenSettings::ties).
    pub fn is_tie(&self, position: usize) -> bool {
        self.ties.binary_search(&self.ids[position]).is_ok()
    }

    /// An image as it is stored: encoded.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be read.
    pub fn encoded(&self, position: usize, side: Side) -> Result<Vec<u8>, DataError> {
        let (container, item) = self.container(position, side);
        container.read(item)
    }

    /// Leaves rows out. That makes another set, unless none of them is a pair so far; one that is skipped already is from now
    /// on skipped because it is listed.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left.
    pub fn exclude(&mut self, ids: &HashSet<PairId>, detail: &str) -> Result<(), DataError> {
        let keep: Vec<bool> = self.ids.iter().map(|id| !ids.contains(&PairId(*id))).collect();
        let out = self.ids.iter().zip(&keep).filter(|(_, keep)| !**keep);
        let out: Vec<Skipped> = out
            .map(|(id, _)| Skipped { id: PairId(*id), reason: Reason::Excluded, detail: detail.into() })
            .collect();
        if !out.is_empty() {
            let mut hash = Sha256::new_with_prefix(self.fingerprint);
            out.iter().for_each(|row| hash.update(row.id.0.to_le_bytes()));
            self.fingerprint = hash.finalize().into();
        }
        for row in self.skipped.iter_mut().filter(|row| ids.contains(&row.id)) {
            *row = Skipped { id: row.id, reason: Reason::Excluded, detail: detail.into() };
        }
        self.skipped.extend(out);
        self.skipped.sort_by_key(|row| row.id);
        retain(&mut self.ids, &keep);
        retain(&mut self.sides, &keep);
        retain(&mut self.captions, &keep);
        retain(&mut self.listed_first, &keep);
        retain(&mut self.soft_labels, &keep);
        retain(&mut self.labels, &keep);
        if self.ids.is_empty() {
            return Err(empty(self.path.clone(), &self.names, &self.skipped));
        }
        Ok(())
    }

    fn container(&self, position: usize, side: Side) -> (&dyn Container, u32) {
        let Spot { container, item } = self.sides[position][side as usize];
        (self.containers[container as usize].as_ref(), item)
    }
}

fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    values.retain(|_| keep.next().copied().unwrap_or(true));
}

impl PairSource for PairSet {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        decode(&self.encoded(position, side)?).map_err(|source| DataError::Image {
            side,
            place: self.place(self.id(position)),
            path: self.file(position, side),
            source: Box::new(source),
        })
    }

    fn size(&self, position: usize, side: Side) -> Option<Size> {
        size_of(&self.encoded(position, side).ok()?)
    }

    fn caption(&self, position: usize) -> &str {
        self.texts.get(self.captions[position] as usize)
    }

    fn id(&self, position: usize) -> PairId {
        PairId(self.ids[position])
    }

    fn place(&self, id: PairId) -> String {
        self.names.of(id)
    }

    fn soft_label(&self, position: usize) -> Option<f64> {
        let soft_label = self.soft_labels.get(position).copied().filter(|soft_label| !soft_label.is_nan());
        soft_label.map(f64::from)
    }

    fn label(&self, position: usize) -> Option<Label> {
        self.labels.get(position).copied()
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn winner_is_listed_first(&self, position: usize) -> Option<bool> {
        self.listed_first.get(position).copied().flatten()
    }
}
