//! What decoded images of all threads take together.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::fs;

use peak_alloc::PeakAlloc;
use serde_json::json;
use tastemaker_data::budget::DECODED;
use tastemaker_data::formats::open;
use tastemaker_data::{PairSource, Side};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A gray image of few bytes and many pixels.
fn large(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_compression(png::Compression::Fastest);
    encoder.write_header().unwrap().write_image_data(&vec![0; (side * side) as usize]).unwrap();
    bytes
}

/// The header of such an image.
fn claiming(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.validate_sequence(false);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0; 8]).unwrap();
    bytes
}

#[test]
fn small_files_with_many_pixels_take_no_more_than_the_budget_whatever_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let image = large(8_000);
    assert!(image.len() < 1 << 20, "{} bytes", image.len());
    fs::write(folder.path().join("1.png"), image).unwrap();
    let row = json!({"winner": "1.png", "loser": "1.png", "caption": "a"}).to_string();
    fs::write(folder.path().join("metadata.jsonl"), row).unwrap();
    let set = open(folder.path()).unwrap();
    MEMORY.reset_peak_usage();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let images = set.images(0, &Side::BOTH).unwrap();
                assert_eq!((images.len(), images[1].dimensions()), (2, (8_000, 8_000)));
            });
        }
    });
    let peak = MEMORY.peak_usage();
    assert!(peak as u64 <= DECODED.bytes() + (64 << 20), "{} MiB", peak >> 20);

    fs::write(folder.path().join("1.png"), claiming(16_000)).unwrap();
    let error = set.image(0, Side::Winner).unwrap_err();
    let problem = error.skips().unwrap();
    assert!(problem.contains("it takes 1221 MiB to decode; wanted at most 1024"), "{problem}");
}
