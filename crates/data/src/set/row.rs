//! What a set keeps of a row.

use crate::{Label, PairId, Side};

/// Where an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Number of the container that holds it.
    pub container: u8,
    /// Number of the image in it.
    pub item: u32,
}

/// What a row is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// A pair of which one image won.
    #[default]
    Ranked,
    /// A pair that nobody ranked.
    Tie,
    /// A single image, which is both sides of its row. Then all rows of the set are.
    Single(Label),
}

/// What is known of a row besides its images and its caption.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Labels {
    /// Whether the winner is listed before the loser, where a layout has such an order.
    pub winner_first: Option<bool>,
    /// Probability that the winner is really the better one.
    pub soft_label: Option<f64>,
    /// What the row is.
    pub verdict: Verdict,
}

/// A row in 28 bytes, for a set may have millions.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Row {
    id: u64,
    items: [u32; 2],
    /// Number of the caption.
    pub caption: u32,
    /// NaN without one.
    soft_label: f32,
    containers: [u8; 2],
    winner_first: Option<bool>,
    verdict: Verdict,
}

impl Row {
    pub fn new(id: PairId, [winner, loser]: [ImageRef; 2], caption: u32, labels: Labels) -> Self {
        Self {
            id: id.0,
            items: [winner.item, loser.item],
            caption,
            soft_label: labels.soft_label.map_or(f32::NAN, |soft_label| soft_label as f32),
            containers: [winner.container, loser.container],
            winner_first: labels.winner_first,
            verdict: labels.verdict,
        }
    }

    pub fn id(&self) -> PairId {
        PairId(self.id)
    }

    pub fn image(&self, side: Side) -> ImageRef {
        ImageRef { container: self.containers[side as usize], item: self.items[side as usize] }
    }

    /// With winner and loser exchanged: somebody says so. A tie is none any more, and what scores were sure of they are now as sure of
    /// the other way.
    pub fn swapped(self) -> Self {
        let ([one, other], [a, b]) = (self.items, self.containers);
        Self {
            items: [other, one],
            containers: [b, a],
            winner_first: self.winner_first.map(|first| !first),
            soft_label: self.soft_label.max(1.0 - self.soft_label),
            verdict: if self.verdict == Verdict::Tie { Verdict::Ranked } else { self.verdict },
            ..self
        }
    }

    pub fn labels(&self) -> Labels {
        let soft_label = Some(self.soft_label).filter(|soft_label| !soft_label.is_nan()).map(f64::from);
        Labels { winner_first: self.winner_first, soft_label, verdict: self.verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_what_it_was_given_in_28_bytes() {
        assert_eq!(size_of::<Row>(), 28);
        let images = [ImageRef { container: 1, item: 7 }, ImageRef { container: 0, item: u32::MAX }];
        let verdict = Verdict::Single(Label::Disliked);
        for labels in
            [Labels::default(), Labels { winner_first: Some(false), soft_label: Some(0.25), verdict }]
        {
            let row = Row::new(PairId(1 << 40), images, 3, labels);
            assert_eq!((row.id(), Side::BOTH.map(|side| row.image(side))), (PairId(1 << 40), images));
            assert_eq!(row.labels(), labels);
        }
    }
}
