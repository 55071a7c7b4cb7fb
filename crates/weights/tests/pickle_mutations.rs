//! Damaged and greedy files are answered, whatever is in them: without a panic, soon, and in little memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod damage;
mod zip;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use damage::{each_damaged, within_limits};
use tastemaker_weights::pickle::LegacyFile;
use zip::{entries, entry, zip};

fn recorded() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/pickle");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "bin")).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Reads a file and looks at every byte of every tensor in it; whether it was accepted.
fn read(bytes: &[u8]) -> bool {
    let bytes = Arc::new(bytes.to_vec());
    match within_limits(bytes.len(), || LegacyFile::over("damaged.bin", bytes.clone())) {
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

/// Pickles that make as much as they can of each byte.
fn greedy() -> Vec<Vec<u8>> {
    const N: usize = 200_000;
    let in_list = |piece: &[u8]| {
        let part = [b"(".as_slice(), &piece.repeat(20_000), b"e"].concat();
        [b"]".as_slice(), &part.repeat(5)].concat()
    };
    let ones = b"K\x01".repeat(15);
    let tensor = [
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000"
            .as_slice(),
        b"X\x03\0\0\0cpuK\x04tQK\0(",
        &ones,
        b"t(",
        &ones,
        b"t\x89}tR",
    ]
    .concat();
    let names: Vec<u8> = (0..30_000).flat_map(|n| format!("X\x05\0\0\0{n:05}h\0s").into_bytes()).collect();
    [
        b"}".repeat(60_000),
        b"(".repeat(60_000),
        [b"}".as_slice(), &b"\x85".repeat(N)].concat(),
        [b"}".as_slice(), &b"\x94".repeat(N)].concat(),
        b"}\x94".repeat(30_000),
        in_list(b"}"),
        in_list(b"N\x85"),
        in_list(b"ca\n\n"),
        // Thirty thousand names for one tensor of many dimensions.
        [b"}X\x01\0\0\0x".as_slice(), &tensor, b"q\0s", &names, b"."].concat(),
    ]
    .into_iter()
    .map(|body| [b"\x80\x02".as_slice(), &body].concat())
    .collect()
}

#[test]
fn damaged_and_greedy_files_are_answered() {
    let files = recorded();
    for bytes in &files {
        for len in (0..bytes.len()).step_by(7) {
            assert!(!read(&bytes[..len]), "a file of {} bytes cut to {len} is accepted", bytes.len());
        }
    }
    each_damaged(10_000, &files, |bytes| {
        read(bytes);
    });
    // Undamaged, all are accepted but the four that are recorded to be refused.
    assert_eq!(files.iter().filter(|bytes| read(bytes)).count(), files.len() - 4);

    let greedy = greedy().into_iter().map(|pickle| read(&zip(&entries(&pickle))));
    assert_eq!(greedy.filter(|accepted| *accepted).count(), 1);
    // As many entries in the archive as its length allows.
    let mut many = entries(b"\x80\x02}.");
    many.extend((0..20_000).map(|n| entry(&format!("w/{n}"), b"")));
    assert!(read(&zip(&many)));
}
