//! What people say about rows, done to a set that was opened.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::{MAX_CAPTION_BYTES, PairSet, Verdict};
use crate::exclusions::{Action, Correction};
use crate::{DataError, PairId, Reason, Skipped};

impl PairSet {
    /// Does what corrections say. That makes another set, unless they change none of its pairs.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left.
    pub fn correct(
        &mut self,
        corrections: &BTreeMap<PairId, Correction>,
        detail: &str,
    ) -> Result<(), DataError> {
        let with = |action: Action| {
            corrections.iter().filter(move |(_, one)| one.action == action).map(|(id, _)| *id)
        };
        let excluded: HashSet<PairId> = with(Action::Exclude).collect();
        let ties: HashSet<PairId> = with(Action::Tie).collect();
        let mut hash = Sha256::new_with_prefix(self.fingerprint);
        let mut changed = false;
        let mut texts = BTreeMap::new();
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain_mut(|row| {
            let Some(correction) = corrections.get(&row.id()) else { return true };
            if ties.contains(&row.id()) {
                self.skipped.push(Skipped { id: row.id(), reason: Reason::Tie, detail: detail.into() });
                hash.update(row.id().0.to_le_bytes());
                hash.update([b't']);
                changed = true;
                return false;
            }
            if correction.action == Action::Swap && !matches!(row.labels().verdict, Verdict::Single(_)) {
                *row = row.swapped();
                if let Some(prompts) = self.originals.get_mut(&row.id()) {
                    prompts.reverse();
                }
                hash.update(row.id().0.to_le_bytes());
                hash.update([b's']);
                changed = true;
            }
            if let Some(caption) = correction.caption.as_ref().filter(|text| text.len() <= MAX_CAPTION_BYTES)
            {
                let number = texts.entry(caption.as_str()).or_insert_with(|| self.texts.push(caption));
                row.caption = *number;
                self.originals.remove(&row.id());
                hash.update(row.id().0.to_le_bytes());
                hash.update((caption.len() as u64).to_le_bytes());
                hash.update(caption);
                changed = true;
            }
            true
        });
        self.rows = rows;
        if changed {
            self.fingerprint = hash.finalize().into();
        }
        self.exclude(&excluded, detail)
    }
}
