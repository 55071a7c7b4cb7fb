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
