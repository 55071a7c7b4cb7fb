//! Damage done to files at random, the same in every run, and the cost of reading them.

use std::ops::Range;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Counts what is allocated. A program that uses this module has one test, so that nothing else is counted.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs `read`, which must be done in 5 seconds and may take 256 bytes for each of the `n_bytes` it is
/// given, and a megabyte.
pub fn within_limits<T>(n_bytes: usize, read: impl FnOnce() -> T) -> T {
    let (limit, start) = (256 * n_bytes + (1 << 20), Instant::now());
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = read();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= limit, "{taken} bytes allocated to read {n_bytes}, {limit} allowed");
    assert!(start.elapsed() < Duration::from_secs(5));
    result
}

#[derive(Debug, Clone)]
enum Damage {
    /// Other bytes in place of as many.
    Replace(Index, Vec<u8>),
    /// Bytes put in between.
    Insert(Index, Vec<u8>),
    /// Bytes gone.
    Cut(Index, usize),
    /// A piece copied over another place.
    Copy(Index, Index, usize),
    /// Everything gone after a place.
    End(Index),
}

fn reach(at: &Index, n: usize, len: usize) -> Range<usize> {
    let at = at.index(len);
    at..(at + n).min(len)
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Replace(at, with) => {
                let place = reach(at, with.len(), len);
                let n = place.len();
                bytes[place].copy_from_slice(&with[..n]);
            }
            Self::Insert(at, with) => {
                let at = at.index(len);
                bytes.splice(at..at, with.iter().copied());
            }
            Self::Cut(at, n) => drop(bytes.drain(reach(at, *n, len))),
            Self::Copy(from, to, n) => {
                let n = (*n).min(len);
                bytes.copy_within(
                    reach(from, n, len - n + 1).start..from.index(len - n + 1) + n,
                    to.index(len - n + 1),
                );
            }
            Self::End(at) => bytes.truncate(at.index(len)),
        }
    }
}

/// Pieces that mean something to one reader or another.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"0.5",
    b"18446744073709551616",
    b"9223372036854775807",
    b"F64",
    b"../",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0\0\0\0\x80",
    b"PK\x03\x04",
    b"PK\x05\x06",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let piece = || {
        prop_oneof![
            2 => any::<u8>().prop_map(|byte| vec![byte]),
            1 => any::<u32>().prop_map(|number| number.to_le_bytes().to_vec()),
            2 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        ]
    };
    prop_oneof![
        8 => (at(), piece()).prop_map(|(at, with)| Damage::Replace(at, with)),
        2 => (at(), piece()).prop_map(|(at, with)| Damage::Insert(at, with)),
        2 => (at(), 1usize..32).prop_map(|(at, n)| Damage::Cut(at, n)),
        2 => (at(), at(), 1usize..32).prop_map(|(from, to, n)| Damage::Copy(from, to, n)),
        1 => at().prop_map(Damage::End),
    ]
}

/// Calls `check` with `n` damaged copies of the files.
pub fn each_damaged(n: u32, files: &[Vec<u8>], check: impl Fn(&[u8])) {
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    let config = Config { cases: n, failure_persistence: None, ..Config::default() };
    let damages = (prop::sample::select(files.to_vec()), prop::collection::vec(damage(), 1..4));
    let outcome = TestRunner::new_with_rng(config, random).run(&damages, |(mut bytes, damages)| {
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        check(&bytes);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
