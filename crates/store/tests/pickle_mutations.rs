//! Damaged files are answered, whatever the damage: without a panic, soon, and in little memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tastemaker_store::pickle::LegacyFile;

/// Counts what is allocated; one test alone in this program, so that nothing else is counted.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What reading may take for each byte of a file, and a constant.
const BYTES_PER_BYTE: usize = 256;
const CONSTANT: usize = 1 << 20;

fn recorded() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/pickle");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "bin"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() > 8);
    files
}

/// Reads a file and looks at every byte of every tensor in it.
fn read(bytes: &[u8]) -> bool {
    let bytes = Arc::new(bytes.to_vec());
    let (limit, start) = (BYTES_PER_BYTE * bytes.len() + CONSTANT, Instant::now());
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let opened = LegacyFile::over("damaged.bin", bytes);
    let taken = MEMORY.peak_usage() - before;
    assert!(taken <= limit, "{taken} bytes allocated, {limit} allowed");
    assert!(start.elapsed() < Duration::from_secs(5));
    match opened {
        Ok(file) => {
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
            std::hint::black_box(file.tensors().map(|tensor| sum(tensor.bytes)).collect::<Vec<_>>());
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 4096, "{error}");
            false
        }
    }
}

#[derive(Debug, Clone)]
enum Damage {
    /// Another byte.
    Byte(prop::sample::Index, u8),
    /// Four bytes of a number with an odd value.
    Number(prop::sample::Index, u32),
    /// Bytes gone.
    Cut(prop::sample::Index, usize),
    /// A piece copied elsewhere.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.len() < 64 {
            return;
        }
        let last = bytes.len() - 32;
        match self {
            Self::Byte(at, with) => bytes[at.index(last)] = *with,
            Self::Number(at, with) => {
                let at = at.index(last);
                bytes[at..at + 4].copy_from_slice(&with.to_le_bytes());
            }
            Self::Cut(at, n) => drop(bytes.drain(at.index(last)..).take(*n).count()),
            Self::Copy(from, to, n) => {
                let (from, to) = (from.index(last), to.index(last));
                bytes.copy_within(from..from + n, to);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![any::<u32>(), Just(u32::MAX), Just(i32::MAX as u32), Just(0), 0u32..256];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, with)| Damage::Byte(at, with)),
        2 => (at(), number).prop_map(|(at, with)| Damage::Number(at, with)),
        1 => (at(), 1usize..32).prop_map(|(at, n)| Damage::Cut(at, n)),
        1 => (at(), at(), 1usize..32).prop_map(|(from, to, n)| Damage::Copy(from, to, n)),
    ]
}

#[test]
fn damaged_files_are_answered() {
    let files = recorded();
    for (path, bytes) in &files {
        for len in (0..bytes.len()).step_by(7) {
            assert!(!read(&bytes[..len]), "{} cut to {len} bytes is accepted", path.display());
        }
    }

    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, random);
    let which = (any::<prop::sample::Index>(), prop::collection::vec(damage(), 1..4), any::<bool>());
    runner
        .run(&which, |(file, damages, in_pickle)| {
            let mut bytes = files[file.index(files.len())].1.clone();
            // Half of the damage goes where the pickle lies, at the start; the rest anywhere.
            let rest = if in_pickle { bytes.split_off(bytes.len().min(800)) } else { Vec::new() };
            damages.iter().for_each(|damage| damage.apply(&mut bytes));
            bytes.extend(rest);
            read(&bytes);
            Ok(())
        })
        .unwrap();
    // Undamaged, all are accepted but the four that are recorded to be refused.
    let accepted = files.iter().filter(|(_, bytes)| read(bytes)).count();
    assert_eq!(accepted, files.len() - 4);
}
