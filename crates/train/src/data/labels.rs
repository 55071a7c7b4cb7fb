//! Labels of a source: soft labels of pairs, and of single images whether they are liked.

use std::collections::HashMap;

use tastemaker_data::{self as data, PairSource};
use tastemaker_math::objectives::Label;
use tastemaker_store::checksum::{hex, sha256_bytes};

/// Probabilities that winners are really the better ones, by identity, of the pairs that have one.
pub(crate) fn soft_labels(source: &dyn PairSource) -> HashMap<u64, f64> {
    (0..source.len()).filter_map(|i| Some((source.id(i).0, source.soft_label(i)?))).collect()
}

/// Labels of single images, by identity; `None` for a source of pairs.
pub(crate) fn labels(source: &dyn PairSource) -> Option<HashMap<u64, Label>> {
    let label = |position| match source.label(position)? {
        data::Label::Liked => Some(Label::Liked),
        data::Label::Disliked => Some(Label::Disliked),
    };
    (0..source.len()).map(|i| Some((source.id(i).0, label(i)?))).collect()
}

/// The pairs of a run in one word: the source's fingerprint, and the soft labels where a method asks for them.
pub(crate) fn pairs_identity(source: &dyn PairSource, asks_soft_labels: bool) -> String {
    let fingerprint = source.fingerprint();
    if !asks_soft_labels {
        return hex(&fingerprint);
    }
    let soft_label = |position| source.soft_label(position).unwrap_or(f64::NAN).to_le_bytes();
    let soft_labels = (0..source.len()).flat_map(soft_label);
    sha256_bytes(&fingerprint.into_iter().chain(soft_labels).collect::<Vec<u8>>())
}
