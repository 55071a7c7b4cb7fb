//! Holding out captions.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tastemaker_math::{Keyed, Stream};

use crate::PairSource;

/// The positions of a source, apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Positions to train on.
    pub train: Vec<usize>,
    /// Positions whose captions are never trained on.
    pub held_out: Vec<usize>,
}

/// What stands for a caption. Surrounding whitespace and case do not make another one, so that a near copy of a held-out caption is
/// not trained on.
fn index(caption: &str) -> u64 {
    let digest = Sha256::digest(caption.trim().to_lowercase());
    digest.iter().take(8).fold(0, |index, &byte| index << 8 | u64::from(byte))
}

/// Captions that are held out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldOut(BTreeSet<u64>);

impl HeldOut {
    /// The nearest whole number of captions to `fraction` of them, and at least one of two or more unless it is 0.
    ///
    /// They are the first of an order that `seed` and each caption alone decide, so neither the order of a set nor how often a caption
    /// comes in it matters, and raising `fraction` only adds captions.
    pub fn of<'a>(captions: impl IntoIterator<Item = &'a str>, fraction: f64, seed: u64) -> Self {
        if fraction <= 0.0 {
            return Self::default();
        }
        let all: BTreeSet<u64> = captions.into_iter().map(index).collect();
        let least = usize::from(all.len() > 1);
        let n = ((fraction * all.len() as f64).round() as usize).clamp(least, all.len());
        let draw = |index: u64| Keyed::new(seed, Stream::Split, index, 0).uniform();
        let mut order: Vec<(f64, u64)> = all.into_iter().map(|index| (draw(index), index)).collect();
        order.sort_by(|(a, i), (b, j)| a.total_cmp(b).then(i.cmp(j)));
        Self(order.into_iter().take(n).map(|(_, index)| index).collect())
    }

    /// Whether a caption is among them.
    pub fn has(&self, caption: &str) -> bool {
        self.0.contains(&index(caption))
    }
}

/// Whether a caption is held out with probability `fraction`, whatever else is in a set: how runs of the first version chose.
pub fn is_drawn(caption: &str, fraction: f64, seed: u64) -> bool {
    Keyed::new(seed, Stream::Split, index(caption), 0).bernoulli(fraction)
}

/// Splits a source by [`HeldOut`]; both sides keep the order of the source.
pub fn split(source: &dyn PairSource, fraction: f64, seed: u64) -> Split {
    let captions = (0..source.len()).map(|position| source.caption(position));
    let chosen = HeldOut::of(captions, fraction, seed);
    split_by(source, |caption| chosen.has(caption))
}

/// Splits a source by [`is_drawn`]; both sides keep the order of the source.
pub fn split_drawn(source: &dyn PairSource, fraction: f64, seed: u64) -> Split {
    split_by(source, |caption| is_drawn(caption, fraction, seed))
}

fn split_by(source: &dyn PairSource, is_held_out: impl Fn(&str) -> bool) -> Split {
    let (held_out, train) = (0..source.len()).partition(|&position| is_held_out(source.caption(position)));
    Split { train, held_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InMemoryPairs, Ranking};
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn raising_the_fraction_only_adds_captions(caption in "\\PC{0,20}", seed: u64, a in 0.0..1.0, b in 0.0..1.0) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(!is_drawn(&caption, low, seed) || is_drawn(&caption, high, seed));
        }

        #[test]
        fn nothing_or_everything_can_be_held_out(caption in "\\PC{0,20}", seed: u64) {
            prop_assert!(!is_drawn(&caption, 0.0, seed));
            prop_assert!(is_drawn(&caption, 1.0, seed));
        }
    }

    #[test]
    fn the_held_out_share_is_the_fraction() {
        let n = 20_000;
        let held_out = (0..n).filter(|i| is_drawn(&format!("caption {i}"), 0.1, 7)).count();
        // 2000 expected with a deviation of 42
        assert!((1800..2200).contains(&held_out), "{held_out}");
    }

    #[test]
    fn the_seed_chooses_other_captions() {
        let chosen =
            |seed| (0..200).map(|i| is_drawn(&format!("caption {i}"), 0.5, seed)).collect::<Vec<_>>();
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
    }

    #[test]
    fn case_and_surrounding_space_make_no_new_caption() {
        for seed in 0..50 {
            assert_eq!(is_drawn("A red fox", 0.5, seed), is_drawn(" a red fox\n", 0.5, seed));
        }
    }

    proptest! {
        #[test]
        fn as_many_captions_are_held_out_as_the_fraction_says(n in 0..60usize, fraction in 0.0..1.0, seed: u64) {
            let all: Vec<String> = (0..n).map(|i| format!("caption {i}")).collect();
            let captions = || all.iter().map(String::as_str);
            let held_out = |fraction: f64| HeldOut::of(captions().chain(captions()), fraction, seed);
            let found = captions().filter(|caption| held_out(fraction).has(caption)).count();
            let least = usize::from(n > 1 && fraction > 0.0);
            prop_assert_eq!(found, ((fraction * n as f64).round() as usize).max(least));
            let more = held_out((fraction + 0.1).min(1.0));
            prop_assert!(captions().all(|caption| !held_out(fraction).has(caption) || more.has(caption)));
        }
    }

    #[test]
    fn twelve_captions_at_a_fifth_hold_out_two_whatever_the_seed() {
        let captions: Vec<String> = (0..12).map(|i| format!("caption {i}")).collect();
        let chosen = |seed| HeldOut::of(captions.iter().map(String::as_str), 0.2, seed);
        for seed in 0..50 {
            assert_eq!(captions.iter().filter(|caption| chosen(seed).has(caption)).count(), 2, "{seed}");
        }
        assert!((0..50).any(|seed| chosen(seed) != chosen(0)));
        assert!(chosen(0).has(" Caption 0") == chosen(0).has("caption 0"));
    }

    #[test]
    fn no_caption_is_on_both_sides() {
        let image = Arc::new(image::RgbImage::new(1, 1));
        let rankings =
            (0..300).map(|i| Ranking { winner: 0, loser: 0, caption: format!("caption {}", i % 40) });
        let pairs = InMemoryPairs::new(vec![image], rankings.collect()).unwrap();
        let Split { train, held_out } = split(&pairs, 0.3, 0);
        assert_eq!(train.len() + held_out.len(), 300);
        assert!(!train.is_empty() && !held_out.is_empty());
        let captions = |side: &[usize]| side.iter().map(|&i| pairs.caption(i)).collect::<Vec<_>>();
        let seen = captions(&train);
        assert!(captions(&held_out).iter().all(|caption| !seen.contains(caption)));
    }
}
