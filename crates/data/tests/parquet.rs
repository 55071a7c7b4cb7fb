//! Tables in parquet files, by the published writers and by hostile hands.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{open_mapped, pairs, png, skipped};
use tastemaker_data::formats::{open, open_at, read_texts};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, PairSource, Reason, Side};
use tastemaker_store::StoreError;
use tastemaker_store::tree::{Blob, Entry, LocalTree, Location, Tree};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data")
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tables_of_the_published_packages_are_read_as_they_read_them() {
    let rows: Value = serde_json::from_slice(&fs::read(golden().join("rows.json")).unwrap()).unwrap();
    let (mut n_pairs, mut n_soft) = (0, 0);
    for (name, rows) in rows.as_object().unwrap() {
        let set = open(golden().join(format!("{name}.parquet"))).unwrap();
        let mut found: Vec<(u64, Value)> = (0..set.len())
            .map(|at| {
                let [winner, loser] = Side::BOTH.map(|side| sha(&set.encoded(at, side).unwrap()));
                let mut row =
                    serde_json::json!({"winner": winner, "loser": loser, "caption": set.caption(at)});
                if let Some(found) = set.soft_label(at) {
                    // Those of the published script are of single precision.
                    let wanted = &rows[set.id(at).0 as usize]["soft_label"];
                    assert!((found - wanted.as_f64().unwrap()).abs() < 1e-6, "{name}: {found}, not {wanted}");
                    row["soft_label"] = wanted.clone();
                    n_soft += 1;
                }
                (set.id(at).0, row)
            })
            .collect();
        n_pairs += found.len();
        let skipped = set.skipped().iter().map(|row| (row.id.0, serde_json::json!({"reason": row.reason})));
        found.extend(skipped);
        found.sort_by_key(|row| row.0);
        let wanted: Vec<(u64, Value)> = (0..).zip(rows.as_array().unwrap().iter().cloned()).collect();
        assert_eq!(found, wanted, "{name}");
    }
    assert!(n_pairs >= 32 && n_soft == 3, "{n_pairs}, {n_soft}");
}

#[test]
fn a_column_of_text_is_read_alone_as_the_published_packages_read_it() {
    let rows: Value = serde_json::from_slice(&fs::read(golden().join("rows.json")).unwrap()).unwrap();
    let mut n_captions = 0;
    for (name, rows) in rows.as_object().unwrap() {
        let path = golden().join(format!("{name}.parquet"));
        let texts = read_texts(&path, &["no_such_column", "caption", "prompt"]).unwrap();
        for (text, row) in texts.iter().zip(rows.as_array().unwrap()) {
            if let Some(caption) = row["caption"].as_str() {
                assert_eq!(text.as_deref().unwrap_or_default(), caption, "{name}");
                n_captions += 1;
            }
        }
        let error = read_texts(&path, &["words"]).unwrap_err().to_string();
        assert!(error.ends_with("none of words is a column of text"), "{name}: {error}");
    }
    assert!(n_captions >= 32, "{n_captions}");
}

/// Values of a column, all there.
enum Column {
    Bytes(Vec<Vec<u8>>),
    Doubles(Vec<f64>),
    Numbers(Vec<i32>),
}

/// Writes a table of required columns, groups of `group_rows`.
fn table(
    path: &Path,
    columns: &[(&str, &str, Column)],
    group_rows: usize,
    properties: WriterPropertiesBuilder,
) {
    let fields: String = columns
        .iter()
        .map(|(name, kind, values)| {
            let physical = match values {
                Column::Bytes(_) => "binary",
                Column::Doubles(_) => "double",
                Column::Numbers(_) => "int32",
            };
            format!("required {physical} {name} {kind};")
        })
        .collect();
    let schema = parse_message_type(&format!("message schema {{ {fields} }}")).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build())).unwrap();
    let n = match &columns[0].2 {
        Column::Bytes(values) => values.len(),
        Column::Doubles(values) => values.len(),
        Column::Numbers(values) => values.len(),
    };
    for start in (0..n).step_by(group_rows) {
        let range = start..n.min(start + group_rows);
        let mut group = writer.next_row_group().unwrap();
        for (.., values) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            match values {
                Column::Bytes(values) => {
                    let values: Vec<ByteArray> =
                        values[range.clone()].iter().map(|v| v.clone().into()).collect();
                    write::<ByteArrayType>(column.typed(), &values);
                }
                Column::Doubles(values) => write::<DoubleType>(column.typed(), &values[range.clone()]),
                Column::Numbers(values) => write::<Int32Type>(column.typed(), &values[range.clone()]),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn write<T: DataType>(column: &mut parquet::column::writer::ColumnWriterImpl<'_, T>, values: &[T::T]) {
    column.write_batch(values, None, None).unwrap();
}

fn images(shades: impl Iterator<Item = u8>) -> Column {
    Column::Bytes(shades.map(png).collect())
}

fn texts(texts: &[&str]) -> Column {
    Column::Bytes(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// Pairs of shades from `first` on, two each.
fn ranked(path: &Path, first: u8, n: u8) {
    let captions: Vec<String> = (0..n).map(|i| format!("caption {}", first + i)).collect();
    let columns = [
        ("chosen", "", images((0..n).map(|i| first + 2 * i))),
        ("rejected", "", images((0..n).map(|i| first + 2 * i + 1))),
        ("prompt", "(UTF8)", texts(&captions.iter().map(String::as_str).collect::<Vec<_>>())),
    ];
    table(path, &columns, 3, WriterProperties::builder());
}

#[test]
fn shards_are_one_set_and_rows_are_counted_through() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    for (shard, first) in [(0, 10), (1, 30)] {
        ranked(&folder.path().join(format!("data/train-{shard:05}-of-00002.parquet")), first, 5);
    }
    let set = open(folder.path()).unwrap();
    assert_eq!(set.len(), 10);
    assert_eq!(pairs(&set)[6], (6, 32, 33, "caption 31"));
    assert_eq!(set.place(set.id(6)), "row 1 of data/train-00001-of-00002.parquet");
    let file = set.file(6, Side::Loser).display().to_string();
    assert!(file.ends_with("data/train-00001-of-00002.parquet, row 1, rejected"), "{file}");
}

#[test]
fn several_splits_are_refused_until_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    for (split, first) in [("train", 10), ("validation_unique", 30)] {
        ranked(&folder.path().join(format!("data/{split}-00000-of-00001.parquet")), first, 2);
    }
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Splits { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the splits train, validation_unique"), "{text}");
    assert!(text.ends_with("data/train-*"), "{text}");
    assert_eq!(pairs(&open(folder.path().join("data/train-*")).unwrap())[0].1, 10);
    assert_eq!(pairs(&open(folder.path().join("data/val*")).unwrap())[0].1, 30);
}

#[test]
fn columns_may_hold_paths_of_files_beside_the_table() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), png(1)).unwrap();
    fs::write(folder.path().join("b.png"), png(2)).unwrap();
    let columns = [
        ("image_0", "(UTF8)", texts(&["a.png", "c.png"])),
        ("image_1", "(UTF8)", texts(&["b.png", "b.png"])),
        ("label_0", "", Column::Numbers(vec![0, 1])),
        ("label_1", "", Column::Doubles(vec![0.5, 0.0])),
        ("caption", "", texts(&["a fox", "x"])),
    ];
    table(&folder.path().join("pairs.parquet"), &columns, 10, WriterProperties::builder());
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 2, 1, "a fox")]);
    assert_eq!(skipped(&set), [(1, Reason::MissingImage)]);
    let mapped = open_mapped(folder.path(), &[("winner", "image_0"), ("loser", "image_1")]).unwrap();
    assert_eq!(pairs(&mapped), [(0, 1, 2, "a fox")]);
}

#[test]
fn columns_of_other_types_are_refused_or_leave_rows_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.parquet");
    let numbers = || Column::Numbers(vec![1, 2]);
    table(&path, &[("chosen", "", numbers()), ("rejected", "", numbers())], 9, WriterProperties::builder());
    let text = open(&path).unwrap_err().to_string();
    assert!(text.contains("the column \"chosen\", which holds neither images nor paths"), "{text}");
    let columns = [
        ("chosen", "", images(1..3)),
        ("rejected", "", images(3..5)),
        ("prompt", "", Column::Bytes(vec![b"a".to_vec(), b"caf\xe9".to_vec()])),
    ];
    table(&path, &columns, 9, WriterProperties::builder());
    let set = open(&path).unwrap();
    assert_eq!((pairs(&set), skipped(&set)), (vec![(0, 1, 3, "a")], vec![(1, Reason::BadRow)]));
}

#[test]
fn a_file_cut_anywhere_or_with_a_byte_changed_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(golden().join("images.parquet")).unwrap();
    let path = folder.path().join("x.parquet");
    let read = || {
        let set = open(&path)?;
        (0..set.len()).try_for_each(|at| set.encoded(at, Side::Winner).map(|_| ()))
    };
    for cut in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = read().unwrap_err();
        assert!(matches!(error, DataError::Store(StoreError::Malformed { .. })), "{cut}: {error:?}");
        assert!(error.to_string().contains("x.parquet is malformed"), "{error}");
    }
    let mut failed = 0;
    for at in (0..whole.len()).step_by(5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        failed += usize::from(read().is_err());
    }
    assert!(failed > 50, "{failed}");
}

#[test]
fn captions_that_unpack_without_end_are_refused_before_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let columns = |caption: usize| {
        [
            ("chosen", "", images(1..3)),
            ("rejected", "", images(3..5)),
            ("prompt", "(UTF8)", Column::Bytes(vec![vec![b'a'; caption], b"b".to_vec()])),
        ]
    };
    let packed = || {
        let level = ZstdLevel::try_new(1).unwrap();
        WriterProperties::builder().set_compression(Compression::ZSTD(level)).set_dictionary_enabled(false)
    };
    table(&path, &columns(200 << 20), 9, packed());
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    let text = open(&path).unwrap_err().to_string();
    assert!(text.contains("a page of 2") && text.contains("wanted at most 67108864"), "{text}");
    table(&path, &columns(30 << 20), 9, packed());
    let set = open(&path).unwrap();
    assert_eq!((set.len(), skipped(&set)), (1, vec![(0, Reason::LongCaption)]));
}

/// A folder that counts what is read of it.
#[derive(Debug)]
struct Counting(LocalTree, Arc<AtomicU64>);

#[derive(Debug)]
struct CountingBlob(Box<dyn Blob>, Arc<AtomicU64>);

impl Tree for Counting {
    fn place(&self, path: &str) -> PathBuf {
        self.0.place(path)
    }
    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.0.entries()
    }
    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        self.0.size(path)
    }
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, StoreError> {
        Ok(Box::new(CountingBlob(self.0.open(path)?, self.1.clone())))
    }
}

impl Blob for CountingBlob {
    fn place(&self) -> &Path {
        self.0.place()
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, start: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.1.fetch_add(length as u64, Ordering::Relaxed);
        self.0.read_at(start, length)
    }
}

/// 600 pairs of noise of 20 kB an image, in two groups of one page each.
fn large(folder: &Path) -> u64 {
    let noise = |i: usize| -> Vec<u8> {
        let mut state = i as u32 + 1;
        (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    let captions: Vec<String> = (0..600).map(|i| format!("caption {}", i / 3)).collect();
    let columns = [
        ("chosen", "", Column::Bytes((0..600).map(|i| noise(2 * i)).collect())),
        ("rejected", "", Column::Bytes((0..600).map(|i| noise(2 * i + 1)).collect())),
        ("prompt", "(UTF8)", texts(&captions.iter().map(String::as_str).collect::<Vec<_>>())),
    ];
    let path = folder.join("x.parquet");
    let pages = WriterProperties::builder().set_data_page_size_limit(1 << 30).set_dictionary_enabled(false);
    table(&path, &columns, 400, pages);
    fs::metadata(path).unwrap().len()
}

fn counted(folder: &Path) -> (PairSet, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let tree = Arc::new(Counting(LocalTree::new(folder), count.clone()));
    (open_at(&Location::new(tree, Vec::new(), folder)).unwrap(), count)
}

#[test]
fn opening_reads_no_images_and_a_pass_by_many_threads_reads_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let size = large(folder.path());
    let (set, count) = counted(folder.path());
    let opened = count.swap(0, Ordering::Relaxed);
    assert!(opened < size / 100, "{opened} of {size}");
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if at >= set.len() {
                        return;
                    }
                    for side in Side::BOTH {
                        assert_eq!(set.encoded(at, side).unwrap().len(), 20_000);
                    }
                }
            });
        }
    });
    let read = count.load(Ordering::Relaxed);
    assert!(read < size * 11 / 10, "{read} of {size}");
}

#[test]
fn any_order_gives_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path());
    let set = open(folder.path()).unwrap();
    let hash = |at: usize| Side::BOTH.map(|side| sha(&set.encoded(at, side).unwrap()));
    let forwards: Vec<_> = (0..set.len()).map(hash).collect();
    for at in [599, 0, 399, 400, 401, 7, 598, 128, 127, 3] {
        assert_eq!(hash(at), forwards[at], "{at}");
    }
}
