//! Which pair is used when.

use tastemaker_math::Permutation;

/// One use of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// How often the whole set has been gone through before: 0 at first.
    pub epoch: u64,
    /// Which of the `n` pairs, in `0..n`.
    pub index: usize,
}

/// The pair that slot `slot` of optimizer step `step` (both from 0) uses, of `n` pairs.
///
/// A step has `pairs_per_step` slots: micro-batch size times accumulation times ranks. Uses are numbered
/// through, every run of `n` of them is one epoch in a fresh order, and a step may straddle two epochs, so no
/// pair is dropped to fill a batch. How a step is cut into micro-batches and ranks does not matter, and
/// resuming at a step needs no state.
///
/// # Panics
/// If `n` is 0, or `slot` is not below `pairs_per_step`.
pub fn pair_at(seed: u64, n: usize, pairs_per_step: usize, step: u64, slot: usize) -> Use {
    assert!(n > 0, "an order of no pairs");
    assert!(slot < pairs_per_step, "slot {slot} of {pairs_per_step}");
    let number = step * pairs_per_step as u64 + slot as u64;
    let n = n as u64;
    let epoch = number / n;
    Use { epoch, index: Permutation::new(seed, epoch, n).get(number % n) as usize }
}

/// All uses of one step, in slot order.
///
/// # Panics
/// If `n` is 0.
pub fn pairs_of_step(seed: u64, n: usize, pairs_per_step: usize, step: u64) -> Vec<Use> {
    (0..pairs_per_step).map(|slot| pair_at(seed, n, pairs_per_step, step, slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_epoch_uses_every_pair_once(seed: u64, n in 1usize..60, pairs_per_step in 1usize..20) {
            let mut uses = (0..).flat_map(|step| pairs_of_step(seed, n, pairs_per_step, step));
            for epoch in 0..3 {
                let mut indices: Vec<usize> = uses.by_ref().take(n).map(|used| {
                    assert_eq!(used.epoch, epoch);
                    used.index
                }).collect();
                indices.sort_unstable();
                prop_assert_eq!(indices, (0..n).collect::<Vec<_>>());
            }
        }

        #[test]
        fn the_order_does_not_depend_on_the_batch(seed: u64, n in 1usize..60, a in 1usize..9, b in 1usize..9) {
            let uses = |pairs_per_step| {
                (0..).flat_map(move |step| pairs_of_step(seed, n, pairs_per_step, step)).take(100).collect::<Vec<_>>()
            };
            prop_assert_eq!(uses(a), uses(b));
        }
    }

    #[test]
    fn epochs_have_their_own_order() {
        let epoch = |step| pairs_of_step(3, 50, 50, step).iter().map(|used| used.index).collect::<Vec<_>>();
        assert_ne!(epoch(0), epoch(1));
    }
}
