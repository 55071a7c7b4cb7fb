//! Scorers for the embedded art: a judge that no trained network has a say in, and a small learned one.

mod art_scorer;
mod features;
mod logistic;
mod nearest_art;
pub(crate) mod preference;
mod preference_check;
mod self_check;

pub use art_scorer::ArtScorer;
pub use nearest_art::ENTRY as NEAREST_ART;
pub(crate) use nearest_art::{Artwork, Judge, Reading};
pub(crate) use preference::PreferenceScorer;
pub use preference_check::{ScorerCheck, ScorerCheckRow};
pub(crate) use preference_check::{StyleTaste, check_preference, motif_pairs, style_pairs};
pub use self_check::CheckRow;
pub(crate) use self_check::self_check;
