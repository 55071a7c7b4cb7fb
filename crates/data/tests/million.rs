//! A table as large as Pick-a-Pic opens in little time and memory. Ignored: it writes 300 MB.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use tastemaker_data::PairSource;
use tastemaker_data::formats::open;
use tastemaker_data::order::pairs_of_step;
use tastemaker_data::split::{Split, split};

const ROWS: usize = 1_000_000;

/// Rows of one caption, as in Pick-a-Pic v2: 959,040 rows of 58,960 prompts.
const ROWS_PER_CAPTION: usize = 16;

fn column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: &[T::T]) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
}

/// Pairs per step of the published runs.
const PAIRS_PER_STEP: usize = 2048;

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Writes the table; a third of the rows are ties if `ties`.
fn write(folder: &Path, rows_per_caption: usize, ties: bool) {
    let schema = "message schema { required binary jpg_0; required binary jpg_1; required double label_0;
        required double label_1; required binary caption (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_dictionary_enabled(false).build());
    let file = File::create(folder.join("train.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let image: ByteArray = vec![7_u8; 100].into();
    for start in (0..ROWS).step_by(1000) {
        let rows = || start..start + 1000;
        let images = vec![image.clone(); 1000];
        let label = |row: usize| if ties { [0.0, 1.0, 0.5][row % 3] } else { [0.0, 1.0][row % 2] };
        let labels: Vec<f64> = rows().map(label).collect();
        let others: Vec<f64> = labels.iter().map(|label| 1.0 - label).collect();
        let caption =
            |row: usize| format!("caption {}: {}", row / rows_per_caption, "of many words ".repeat(5));
        let captions: Vec<ByteArray> = rows().map(|row| caption(row).into_bytes().into()).collect();
        let mut group = writer.next_row_group().unwrap();
        column::<ByteArrayType>(&mut group, &images);
        column::<ByteArrayType>(&mut group, &images);
        column::<DoubleType>(&mut group, &labels);
        column::<DoubleType>(&mut group, &others);
        column::<ByteArrayType>(&mut group, &captions);
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
#[ignore = "writes 300 MB and takes a minute; run with --ignored --nocapture"]
fn a_million_rows_are_opened_split_and_ordered_in_a_minute_and_two_hundred_megabytes() {
    for (rows_per_caption, ties, n_ties) in [(ROWS_PER_CAPTION, true, 333_333), (1, false, 0)] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), rows_per_caption, ties);
        let (before, began) = (peak(), Instant::now());
        let set = open(folder.path()).unwrap();
        let opened = began.elapsed().as_secs_f64();
        let Split { train, held_out } = split(&set, 0.05, 7);
        let n_steps = (train.len() / PAIRS_PER_STEP) as u64;
        // One epoch, each step asked for by itself, as training does.
        let used: usize =
            (0..n_steps).map(|step| pairs_of_step(7, train.len(), PAIRS_PER_STEP, step).len()).sum();
        let (seconds, peak) = (began.elapsed().as_secs_f64(), peak());
        println!(
            "{rows_per_caption} rows per caption: opened in {opened:.1} s, split and ordered by {seconds:.1} s, peak {} MB, of \
             which {} MB were before",
            peak >> 20,
            before >> 20
        );
        assert_eq!((set.len(), set.skipped().len()), (ROWS - n_ties, n_ties));
        assert_eq!(train.len() + held_out.len(), set.len());
        assert_eq!(used, n_steps as usize * PAIRS_PER_STEP);
        assert!(seconds < 60.0 && peak < 200 << 20);
    }
}
