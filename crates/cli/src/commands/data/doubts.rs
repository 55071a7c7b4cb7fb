//! Pairs about which scorers are of several minds, as `curate` takes them.

use serde_json::json;
use tastemaker_data::check::CHECK_FORMAT;
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairId, PairSource};
use tastemaker_store::checksum::hex;

use super::scoring::Scored;

/// Findings about pairs, in the order of the set.
pub struct Doubts {
    fingerprint: [u8; 32],
    found: Vec<(PairId, String, &'static str, String)>,
}

impl Doubts {
    /// Of the pairs at these positions, whose images were scored one pair after the other, winners first. `fingerprint` is that of the set
    /// that is to be curated.
    pub fn of(set: &PairSet, positions: &[usize], scored: &Scored, fingerprint: [u8; 32]) -> Self {
        let mut found = Vec::new();
        for (number, &position) in positions.iter().enumerate() {
            let gaps: Vec<(&str, f64)> = scored.gaps(number).collect();
            let id = set.id(position);
            let mut find = |check, detail| found.push((id, set.place(id), check, detail));
            let minds = |prefers: fn(f64) -> bool| gaps.iter().any(|(_, gap)| prefers(*gap));
            let is_divided = minds(|gap| gap > 0.0) && minds(|gap| gap < 0.0);
            if is_divided {
                find("scorers-disagree", in_words(&gaps));
            } else if !set.is_tie(position) && minds(|gap| gap < 0.0) {
                find("scorers-against-label", in_words(&gaps));
            }
        }
        Self { fingerprint, found }
    }

    /// How many there are.
    pub fn n(&self) -> usize {
        self.found.len()
    }

    /// As `data check` writes what it finds, for the set that the user called `name`.
    pub fn text(&self, name: &str) -> String {
        let head =
            json!({ "check_format": CHECK_FORMAT, "set": name, "fingerprint": hex(&self.fingerprint) });
        let line = |(row, place, check, detail): &(PairId, String, &str, String)| json!({ "row": row, "place": place, "side": null, "check": check, "severity": "note", "detail": detail, "file": null });
        std::iter::once(head).chain(self.found.iter().map(line)).map(|line| format!("{line}\n")).collect()
    }
}

/// By how much each scorer prefers which image.
fn in_words(gaps: &[(&str, f64)]) -> String {
    let word = |(name, gap): &(&str, f64)| match gap {
        gap if *gap > 0.0 => format!("{name} prefers the winner by {gap:.3}"),
        gap if *gap < 0.0 => format!("{name} prefers the loser by {:.3}", -gap),
        _ => format!("{name} prefers neither"),
    };
    gaps.iter().map(word).collect::<Vec<_>>().join(", ")
}
