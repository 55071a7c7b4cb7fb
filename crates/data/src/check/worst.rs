//! The findings that the page shows with their images.

use tastemaker_pages::Thumbnail;

use super::finding::{Finding, Subject};
use super::summary::Summary;
use crate::set::PairSet;
use crate::{PairSource, Side};

/// Most findings with images, so that the page stays small.
const MOST: usize = 36;

/// A finding as the page shows it.
pub struct Case<'a> {
    /// What was found.
    pub finding: &'a Finding,
    /// The caption, where there is a pair.
    pub caption: Option<&'a str>,
    /// Whether it is about a single image, which is then the winner.
    pub is_single: bool,
    /// Winner and loser; `None` for one that does not decode.
    pub thumbnails: [Option<Thumbnail>; 2],
}

/// The remembered findings, those about pairs with both images.
pub fn cases<'a>(set: &'a PairSet, summary: &'a Summary) -> Vec<Case<'a>> {
    let mut n_pairs = 0;
    let mut case = |finding: &'a Finding| {
        let Subject::Pair(_, position) = finding.subject else {
            return Some(Case { finding, caption: None, is_single: false, thumbnails: [None, None] });
        };
        n_pairs += 1;
        (n_pairs <= MOST).then(|| Case {
            finding,
            caption: Some(set.caption(position)),
            is_single: set.label(position).is_some(),
            thumbnails: Side::BOTH.map(|side| thumbnail(set, position, side)),
        })
    };
    summary.worst.iter().filter_map(&mut case).collect()
}

fn thumbnail(set: &PairSet, position: usize, side: Side) -> Option<Thumbnail> {
    Thumbnail::new(&set.image(position, side).ok()?).ok()
}
