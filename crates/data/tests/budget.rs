//! What decoded images of all threads take together.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::fs;
use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use serde_json::json;
use tastemaker_data::budget::DECODED;
use tastemaker_data::formats::open;
use tastemaker_data::{PairSource, Side};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What is measured is of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

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

/// Pairs of images that are all one, of many bytes, in a table of few.
fn repeating(path: &std::path::Path, bytes: usize, n_rows: usize) {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema =
        "message s { required binary chosen; required binary rejected; required binary prompt (UTF8); }";
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let level = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(level)
        .set_dictionary_page_size_limit(1 << 30)
        .set_data_page_size_limit(1 << 30)
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(file, schema.into(), properties.into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let image = ByteArray::from(vec![0; bytes]);
    for value in [image.clone(), image, ByteArray::from("a fox")] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&vec![value; n_rows], None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn images_that_rows_of_a_table_share_take_no_more_than_one() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    repeating(&path, 2 << 20, 128);
    assert!(fs::metadata(&path).unwrap().len() < 1 << 16);
    let set = open(&path).unwrap();
    MEMORY.reset_peak_usage();
    assert_eq!(set.encoded(100, Side::Loser).unwrap().len(), 2 << 20);
    let peak = MEMORY.peak_usage();
    assert!(peak <= 48 << 20, "{} MiB", peak >> 20);
}

#[test]
fn small_files_with_many_pixels_take_no_more_than_the_budget_whatever_the_number_of_threads() {
    let _alone = ALONE.lock();
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
