//! A random order of `n` things in constant memory.

use crate::keyed::{Keyed, Stream, philox4x32};

/// A permutation of `0..n` that is a pure function of (seed, epoch, n): any position can be read without the others.
///
/// A Feistel network permutes the smallest square domain of at least `n` numbers; positions that land outside `0..n`
/// walk on along their cycle until they are inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    key: [u32; 2],
    n: u64,
    half_bits: u32,
}

/// Enough for every order of few things to be reachable; Luby and Rackoff need four on large domains.
const ROUNDS: u32 = 8;

impl Permutation {
    /// The order of epoch `epoch` over `n` things.
    pub fn new(seed: u64, epoch: u64, n: u64) -> Self {
        let mut keyed = Keyed::new(seed, Stream::Order, epoch, 0);
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        // Halves of at least three bits: on two-bit domains a Feistel network reaches few orders
        Self { key: [keyed.next_u32(), keyed.next_u32()], n, half_bits: bits.div_ceil(2).max(3) }
    }

    /// Which thing comes at position `i`.
    ///
    /// # Panics
    /// If `i` is not below `n`.
    pub fn get(&self, i: u64) -> u64 {
        assert!(i < self.n, "position {i} of an order of {}", self.n);
        let mut place = self.encrypt(i);
        while place >= self.n {
            place = self.encrypt(place);
        }
        place
    }

    /// How many things are ordered.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is nothing to order.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The whole order, front to back.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.n).map(|i| self.get(i))
    }

    fn encrypt(&self, number: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            let mixed = philox4x32([right as u32, round, 0, 0], self.key)[0];
            (left, right) = (right, (left ^ u64::from(mixed)) & mask);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn every_thing_comes_exactly_once(seed: u64, epoch in 0..9_u64, n in 0..3000_u64) {
            let order: BTreeSet<u64> = Permutation::new(seed, epoch, n).iter().collect();
            prop_assert_eq!(order.len() as u64, n);
            prop_assert!(order.iter().all(|&thing| thing < n));
        }

        #[test]
        fn positions_of_the_largest_orders_stay_in_range(seed: u64, i: u64) {
            prop_assert!(Permutation::new(seed, 0, u64::MAX).get(i.min(u64::MAX - 1)) < u64::MAX);
        }
    }

    #[test]
    fn all_orders_of_four_things_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::<Vec<u64>, u32>::new();
        for epoch in 0..24_000 {
            *counts.entry(Permutation::new(3, epoch, 4).iter().collect()).or_default() += 1;
        }
        // Expected 1000 each, standard deviation 31: chi-square with 23 degrees of freedom stays below 60 (p = 4e-5)
        let chi_square: f64 =
            counts.values().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
        assert_eq!(counts.len(), 24);
        assert!(chi_square < 60.0, "{chi_square}");
    }

    #[test]
    fn epochs_and_seeds_have_their_own_orders() {
        let order = |seed, epoch| Permutation::new(seed, epoch, 100).iter().collect::<Vec<_>>();
        assert_eq!(order(1, 1), order(1, 1));
        assert_ne!(order(1, 1), order(1, 2));
        assert_ne!(order(1, 1), order(2, 1));
    }

    #[test]
    #[should_panic(expected = "position 5 of an order of 5")]
    fn a_position_beyond_the_end_is_a_bug() {
        Permutation::new(0, 0, 5).get(5);
    }
}
