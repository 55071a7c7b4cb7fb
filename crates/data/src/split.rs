//! Holding out captions.

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

/// Whether a caption is held out, with probability `fraction` over captions.
///
/// A pure function of its arguments: all pairs of one caption fall on the same side, and neither the order of
/// a set, nor its size, nor what else is in it matters. Raising `fraction` only adds captions. Surrounding
/// whitespace and case do not make another caption, so that a near copy of a held-out caption is not trained
/// on.
pub fn is_held_out(caption: &str, fraction: f64, seed: u64) -> bool {
    let digest = Sha256::digest(caption.trim().to_lowercase());
    let index = digest.iter().take(8).fold(0, |index, &byte| index << 8 | u64::from(byte));
    Keyed::new(seed, Stream::Split, index, 0).bernoulli(fraction)
}

/// Splits a source by [`is_held_out`]; both sides keep the order of the source.
pub fn split(source: &dyn PairSource, fraction: f64, seed: u64) -> Split {
    let (held_out, train) =
        (0..source.len()).partition(|&position| is_held_out(source.caption(position), fraction, seed));
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
            prop_assert!(!is_held_out(&caption, low, seed) || is_held_out(&caption, high, seed));
        }

        #[test]
        fn nothing_or_everything_can_be_held_out(caption in "\\PC{0,20}", seed: u64) {
            prop_assert!(!is_held_out(&caption, 0.0, seed));
            prop_assert!(is_held_out(&caption, 1.0, seed));
        }
    }

    #[test]
    fn the_held_out_share_is_the_fraction() {
        let n = 20_000;
        let held_out = (0..n).filter(|i| is_held_out(&format!("caption {i}"), 0.1, 7)).count();
        // 2000 expected with a deviation of 42
        assert!((1800..2200).contains(&held_out), "{held_out}");
    }

    #[test]
    fn the_seed_chooses_other_captions() {
        let chosen =
            |seed| (0..200).map(|i| is_held_out(&format!("caption {i}"), 0.5, seed)).collect::<Vec<_>>();
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
    }

    #[test]
    fn case_and_surrounding_space_make_no_new_caption() {
        for seed in 0..50 {
            assert_eq!(is_held_out("A red fox", 0.5, seed), is_held_out(" a red fox\n", 0.5, seed));
        }
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
