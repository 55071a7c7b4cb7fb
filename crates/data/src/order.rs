//! Which pair is used when.

use std::collections::BTreeMap;

use tastemaker_math::Permutation;
use tastemaker_math::keyed::{Keyed, Stream};

use crate::transform::Size;

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

/// The order of pairs of several bucket resolutions: they are drawn in groups, and a group has pairs of one resolution, so that no
/// micro-batch of that many pairs is cut short.
///
/// The pairs of each resolution have an order of their own, epoch after epoch without end, and its next group takes the next pairs of
/// it. In one epoch of the whole set a resolution with `n` pairs has `n / group` groups, where the remainder carries over to the next epoch:
/// before epoch `e` it had `floor((e n + phase) / group)`, with a phase below `group` that is drawn once. The groups of an epoch come
/// in a random order. Any step can be read without those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOrder {
    seed: u64,
    group: u64,
    n_pairs: u64,
    buckets: Vec<Bucket>,
}

/// The pairs of one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// Of the order of its own.
    seed: u64,
    phase: u64,
    pairs: Vec<usize>,
}

impl BucketOrder {
    /// The order of pairs with these resolutions, in groups of this many; `None` where it would be that of [`pairs_of_step`]: for pairs of one
    /// resolution, and groups of one pair.
    pub fn new(seed: u64, group: u64, resolutions: impl Iterator<Item = Size>) -> Option<Self> {
        let mut buckets: BTreeMap<Size, Vec<usize>> = BTreeMap::new();
        for (index, resolution) in resolutions.enumerate() {
            buckets.entry(resolution).or_default().push(index);
        }
        if buckets.len() < 2 || group < 2 {
            return None;
        }
        let n_pairs = buckets.values().map(|pairs| pairs.len() as u64).sum();
        let bucket = |((width, height), pairs): (Size, Vec<usize>)| {
            let name = u64::from(width) << 32 | u64::from(height);
            let mut keyed = Keyed::new(seed, Stream::Order, name, 1);
            let seed = u64::from(keyed.next_u32()) << 32 | u64::from(keyed.next_u32());
            Bucket { seed, phase: u64::from(keyed.next_u32()) % group, pairs }
        };
        Some(Self { seed, group, n_pairs, buckets: buckets.into_iter().map(bucket).collect() })
    }

    /// Pairs in a group.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// All uses of one step, group after group.
    ///
    /// # Panics
    /// If a step has no whole number of groups.
    pub fn pairs_of_step(&self, pairs_per_step: usize, step: u64) -> Vec<Use> {
        let n_groups = pairs_per_step as u64 / self.group;
        assert_eq!(n_groups * self.group, pairs_per_step as u64, "groups of {}", self.group);
        (step * n_groups..(step + 1) * n_groups).flat_map(|number| self.pairs_of_group(number)).collect()
    }

    fn pairs_of_group(&self, number: u64) -> impl Iterator<Item = Use> + '_ {
        let epoch = self.epoch_of(number);
        let first = self.n_before(epoch);
        let order = Permutation::new(self.seed, epoch, self.n_before(epoch + 1) - first);
        let mut at = order.get(number - first);
        let mut found = (0, 0);
        for (position, bucket) in self.buckets.iter().enumerate() {
            let (before, after) =
                (bucket.n_before(epoch, self.group), bucket.n_before(epoch + 1, self.group));
            if at < after - before {
                found = (position, before + at);
                break;
            }
            at -= after - before;
        }
        let (bucket, of_bucket) = (&self.buckets[found.0], found.1);
        (of_bucket * self.group..(of_bucket + 1) * self.group).map(|place| bucket.at(place))
    }

    /// Groups before an epoch.
    fn n_before(&self, epoch: u64) -> u64 {
        self.buckets.iter().map(|bucket| bucket.n_before(epoch, self.group)).sum()
    }

    /// The epoch that a group is in.
    fn epoch_of(&self, number: u64) -> u64 {
        // Each bucket is less than one group behind its share.
        let (mut low, mut high) =
            (0, (number + self.buckets.len() as u64 + 1) * self.group / self.n_pairs + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.n_before(middle) <= number { low = middle } else { high = middle }
        }
        low
    }
}

impl Bucket {
    fn n_before(&self, epoch: u64, group: u64) -> u64 {
        (epoch * self.pairs.len() as u64 + self.phase) / group
    }

    fn at(&self, place: u64) -> Use {
        let n = self.pairs.len() as u64;
        let epoch = place / n;
        Use { epoch, index: self.pairs[Permutation::new(self.seed, epoch, n).get(place % n) as usize] }
    }
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

    /// Pairs whose resolutions are drawn from these.
    fn resolutions(n: usize, n_buckets: u32) -> Vec<Size> {
        (0..n as u32).map(|i| (512 + 64 * (i * i % 7 % n_buckets), 512)).collect()
    }

    proptest! {
        #[test]
        fn a_group_is_of_one_bucket_and_pairs_of_a_bucket_are_used_equally_often(
            seed: u64, n in 10usize..80, n_buckets in 2u32..5, group in 2u64..9, epochs in 1u64..6,
        ) {
            let resolutions = resolutions(n, n_buckets);
            let order = BucketOrder::new(seed, group, resolutions.iter().copied()).unwrap();
            let n_groups = order.n_before(epochs);
            let mut used = BTreeMap::new();
            for number in 0..n_groups {
                let uses: Vec<Use> = order.pairs_of_group(number).collect();
                prop_assert_eq!(uses.len() as u64, group);
                prop_assert!(uses.iter().all(|u| resolutions[u.index] == resolutions[uses[0].index]));
                for u in uses {
                    // No draw is made twice.
                    prop_assert!(used.entry(u.index).or_insert_with(Vec::new).iter().all(|&epoch| epoch != u.epoch));
                    used.get_mut(&u.index).unwrap().push(u.epoch);
                }
            }
            for bucket in &order.buckets {
                let counts = bucket.pairs.iter().map(|pair| used.get(pair).map_or(0, Vec::len) as u64);
                let (least, most) = (counts.clone().min().unwrap(), counts.clone().max().unwrap());
                prop_assert!(most - least <= 1, "{} {}", least, most);
                // Within a group of its share.
                prop_assert!(counts.sum::<u64>().abs_diff(epochs * bucket.pairs.len() as u64) < group);
            }
        }

        #[test]
        fn the_groups_of_a_step_do_not_depend_on_the_steps_before(seed: u64, n in 10usize..60, group in 2usize..6) {
            let order = BucketOrder::new(seed, group as u64, resolutions(n, 3).into_iter()).unwrap();
            let uses = |n_groups: usize| {
                let steps = (0..24 / n_groups as u64).rev().map(|step| order.pairs_of_step(n_groups * group, step));
                steps.collect::<Vec<_>>().into_iter().rev().flatten().collect::<Vec<_>>()
            };
            prop_assert_eq!(uses(1), uses(4));
        }
    }

    #[test]
    fn a_set_of_one_bucket_and_groups_of_one_keep_the_order_they_had() {
        assert_eq!(BucketOrder::new(1, 4, [(512, 512); 9].into_iter()), None);
        assert_eq!(BucketOrder::new(1, 1, resolutions(9, 3).into_iter()), None);
    }
}
