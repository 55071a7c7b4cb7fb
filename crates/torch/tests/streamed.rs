//! Memory that writing takes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::collections::BTreeMap;

use tastemaker_store::checksum::sha256_file;
use tastemaker_torch::memory;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

const MEBIBYTE: u64 = 1 << 20;

/// Tensors that take no memory before they are written, as those of a device take none of the host's.
fn elsewhere(n: usize, elements: i64) -> Named {
    let one = |i: usize| Tensor::full([1], i as f64, (Kind::Float, Device::Cpu)).expand([elements], false);
    (0..n).map(|i| (format!("{i:04}"), one(i))).collect()
}

/// Bytes by which `work` raises the peak of this process.
fn peak_of(work: impl FnOnce()) -> u64 {
    memory::give_back();
    assert!(memory::reset_peak());
    let before = memory::read().unwrap().resident;
    work();
    memory::read().unwrap().peak.saturating_sub(before)
}

#[test]
#[cfg(target_os = "linux")]
fn writing_takes_the_memory_of_one_tensor_and_hashes_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let state = elsewhere(24, 2 * MEBIBYTE as i64);
    let mut sha256 = String::new();
    let peak = peak_of(|| {
        let staged = tensors::stage(&path, &state, &BTreeMap::new()).unwrap();
        sha256 = staged.sha256().to_owned();
        staged.finish().unwrap();
    });
    // 192 MiB are written, each tensor has 8.
    assert!(peak < 40 * MEBIBYTE, "{} MiB", peak / MEBIBYTE);
    assert_eq!(sha256, sha256_file(&path).unwrap());
    let sealed = peak_of(|| tensors::write_sealed(&path, &state, &BTreeMap::new()).unwrap());
    let rounded = peak_of(|| tensors::write_as(&path, &state, Kind::Half, &BTreeMap::new()).unwrap());
    assert!(sealed.max(rounded) < 40 * MEBIBYTE, "{sealed} {rounded}");
}

/// For measurements: prints the memory that a state of the size of SDXL's UNet in f32, 10.3 GB, takes to be written into `STATE_DIR`.
#[test]
#[ignore = "writes ten gigabytes"]
#[cfg(target_os = "linux")]
fn a_state_of_the_size_of_sdxl() {
    let folder = tempfile::tempdir_in(std::env::var("STATE_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    let path = folder.path().join("state.safetensors");
    // 2.57 billion weights, the largest tensor with 10240 x 1280 of them.
    let state = elsewhere(196, 10_240 * 1280);
    let began = std::time::Instant::now();
    let peak = peak_of(|| tensors::write(&path, &state, &BTreeMap::new()).unwrap());
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{bytes} bytes, peak {} MiB, {:?}", peak / MEBIBYTE, began.elapsed());
}
