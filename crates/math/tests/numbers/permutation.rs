//! Orders: complete, equally likely, and their own for each seed and epoch.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tastemaker_math::Permutation;

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
    let chi_square: f64 = counts.values().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
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
