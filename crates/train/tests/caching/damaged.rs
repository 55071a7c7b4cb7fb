//! Caches that are not what was written: by a flipped bit, by an earlier version, by somebody's craft, by a cut.

use std::path::PathBuf;

use serde_json::{Value, json};
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::sealed;
use tastemaker_torch::tensors::Raw;
use tastemaker_weights::safetensors::{Dtype, SafeTensorsFile, TensorView, to_bytes};

use super::*;

/// A whole cache of three pairs.
struct Made {
    folder: tempfile::TempDir,
    source: InMemoryPairs,
    key: Key,
    shapes: EncodedShapes,
}

impl Made {
    fn new() -> Self {
        let (folder, source, text) = (tempfile::tempdir().unwrap(), source(), text(false));
        let key = key(&source, false, 8);
        make(folder.path(), &key, &source, &Plain::default(), Some(&text), settings(1, (0, 1))).unwrap();
        let width = *text.encode(&["x"], 0).hidden.size().last().unwrap() as usize;
        let shapes = EncodedShapes { channels: 3, downsampling: 1, width, has_lengths: false, pooled: None };
        Self { folder, source, key, shapes }
    }

    fn path(&self, start: &str) -> PathBuf {
        let mut names = files(self.folder.path()).into_keys();
        self.folder.path().join(names.find(|name| name.starts_with(start)).unwrap())
    }

    /// Opens it and uses every row.
    fn used(&self) -> Result<Vec<Batch>, TrainError> {
        let folder = CacheFolder::open(self.folder.path(), &self.key)?;
        let conditioning = CacheConditioning { time_ids: None, tokens: None };
        let n_captions = Captions::of(&self.source).texts.len();
        let pairs =
            CachedPairs::open(&folder, &self.key, &self.source, n_captions, self.shapes, conditioning)?;
        let skipped = pairs.skipped(&self.source).count();
        let batch = |drop_caption| {
            let uses: Vec<Use> = (0..3).map(|index| Use { index, draw: 0, drop_caption }).collect();
            pairs.batch(&uses, &options(false)).map(|loaded| loaded.batch.unwrap())
        };
        let batches = vec![batch(false)?, batch(true)?];
        assert_eq!(skipped + batches[0].n_pairs(), 3);
        Ok(batches)
    }

    /// Puts other tensors in the place of a shard, with an index that fits them.
    fn craft(&self, start: &str, metadata: Option<&str>, change: impl FnOnce(&mut Vec<Raw>)) {
        let path = self.path(start);
        let file = SafeTensorsFile::open(&path).unwrap();
        let raw = |view: TensorView<'_>| Raw {
            name: view.name.to_owned(),
            dtype: view.dtype,
            shape: view.shape.to_vec(),
            bytes: view.bytes.to_vec(),
        };
        let mut tensors: Vec<Raw> = file.tensors().map(raw).collect();
        change(&mut tensors);
        let mut entries = file.metadata().clone();
        entries.extend(metadata.map(|skipped| ("skipped".to_owned(), skipped.to_owned())));
        let bytes = to_bytes(&path, &tensors.iter().map(Raw::view).collect::<Vec<_>>(), &entries).unwrap();
        fs::remove_file(&path).unwrap();
        let kind = start.strip_suffix('-').unwrap();
        let name = format!("{kind}-00000-{}.safetensors", &sha256_bytes(&bytes)[..16]);
        fs::write(self.folder.path().join(name), bytes).unwrap();
        fs::remove_file(self.folder.path().join("index.json")).unwrap();
        let mut folder = CacheFolder::open(self.folder.path(), &self.key).unwrap();
        // A table so odd that it is not a shard's is refused here already.
        let _ = folder.finish(1, 1, true);
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_cache_is_found() {
    let made = Made::new();
    made.used().unwrap();
    for (name, whole) in files(made.folder.path()) {
        let path = made.folder.path().join(&name);
        let is_shard = name.ends_with(".safetensors");
        // Headers and tables come first in the file; of the rows behind them some bytes are enough.
        for at in (0..whole.len()).filter(|at| !is_shard || *at < 1500 || at % 61 == 0) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let Err(error) = made.used() else { panic!("{name}: byte {at} is not covered") };
            let error = error.to_string();
            let names_it = !is_shard || error.contains(&name);
            assert!(
                names_it && error.contains(made.folder.path().to_str().unwrap()),
                "{name}, {at}: {error}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    made.used().unwrap();
}

#[test]
fn a_cache_of_an_earlier_version_is_read_in_full_once_and_then_covered() {
    let made = Made::new();
    let wanted = made.used().unwrap();
    // Version 1 had other names for standard deviations and skipped pairs; neither version had checksums of tables.
    made.craft("pairs-", None, |tensors| {
        for tensor in tensors {
            tensor.name = tensor.name.replace(".std", ".deviation");
        }
    });
    let index = made.folder.path().join("index.json");
    let mut value = sealed::read(&index).unwrap().value;
    value["format"] = json!(2);
    for shard in value["shards"].as_array_mut().unwrap() {
        shard.as_object_mut().unwrap().retain(|field, _| !["head", "pairs"].contains(&field.as_str()));
    }
    let old = value.to_string();
    fs::write(&index, &old).unwrap();
    let opened = || CacheFolder::open(made.folder.path(), &made.key).unwrap().was_read_in_full();
    assert_eq!([opened(), opened()], [true, false]);
    let found = made.used().unwrap();
    assert!(found.iter().zip(&wanted).all(|(found, wanted)| found.latents.equal(&wanted.latents)));

    fs::write(&index, &old).unwrap();
    let path = made.path("pairs-");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = made.used().unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn an_index_without_outlines_gets_them_and_no_row_is_read_for_it() {
    let made = Made::new();
    let wanted = made.used().unwrap();
    let index = made.folder.path().join("index.json");
    let now = fs::read(&index).unwrap();
    let mut value = sealed::read(&index).unwrap().value;
    value["format"] = json!(3);
    for shard in value["shards"].as_array_mut().unwrap() {
        shard.as_object_mut().unwrap().remove("pairs");
    }
    sealed::write(&index, &value).unwrap();
    let path = made.path("pairs-");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(!CacheFolder::open(made.folder.path(), &made.key).unwrap().was_read_in_full());
    assert!(fs::read(&index).unwrap() == now);
    assert!(made.used().is_err());
    fs::write(&path, whole).unwrap();
    let found = made.used().unwrap();
    assert!(found.iter().zip(&wanted).all(|(found, wanted)| found.latents.equal(&wanted.latents)));
}

#[test]
fn a_cache_of_a_later_version_is_refused() {
    let made = Made::new();
    let index = made.folder.path().join("index.json");
    let mut value: Value = sealed::read(&index).unwrap().value;
    value["format"] = json!(5);
    sealed::write(&index, &value).unwrap();
    let error = made.used().unwrap_err().to_string();
    assert!(error.contains("it has format 5; this version reads 1 to 4"), "{error}");
}

fn named<'a>(tensors: &'a mut [Raw], end: &str) -> &'a mut Raw {
    tensors.iter_mut().find(|tensor| tensor.name.ends_with(end)).unwrap()
}

/// Sets a number in a table.
fn set(tensors: &mut [Raw], table: &str, at: usize, number: i64) {
    named(tensors, table).bytes[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
}

fn reshape(tensors: &mut [Raw], end: &str, shape: &[usize]) {
    named(tensors, end).shape = shape.to_vec();
}

/// A shard, its skipped pairs, and what is done to it.
type Craft = (&'static str, Option<&'static str>, fn(&mut Vec<Raw>));

#[test]
fn a_crafted_cache_is_an_error() {
    let crafts: [Craft; 24] = [
        ("pairs-", None, |t| t.clear()),
        ("pairs-", None, |t| reshape(t, "entries", &[9, 3])),
        ("pairs-", None, |t| set(t, "entries", 0, 17)),
        ("pairs-", None, |t| set(t, "entries", 2, 2)),
        ("pairs-", None, |t| set(t, "entries", 3, 1 << 40)),
        ("pairs-", None, |t| set(t, "entries", 3, -1)),
        ("pairs-", None, |t| set(t, "entries", 4, 2)),
        ("pairs-", None, |t| set(t, "entries", 4, i64::from(u32::MAX))),
        ("pairs-", None, |t| (0..9).for_each(|column| set(t, "entries", column, -1))),
        ("pairs-", Some("[[0, \"x\"]]"), |_| {}),
        ("pairs-", Some("[[3, \"x\"]]"), |_| {}),
        ("pairs-", Some("[[18446744073709551615, \"x\"]]"), |_| {}),
        ("pairs-", Some("7"), |_| {}),
        ("pairs-", None, |t| reshape(t, "mean", &[2, 1, 16, 3, 16])),
        ("pairs-", None, |t| reshape(t, "mean", &[1, 2, 3, 16, 16])),
        ("pairs-", None, |t| reshape(t, "std", &[2, 3, 1, 16, 16])),
        ("pairs-", None, |t| reshape(t, "checks", &[1, 2])),
        ("pairs-", None, |t| {
            for end in ["mean", "std", "checks"] {
                named(t, end).bytes.clear();
            }
            let huge = 1 << 31;
            reshape(t, "mean", &[2, 0, huge, huge, huge]);
            reshape(t, "std", &[0, 1, huge, huge, huge]);
            reshape(t, "checks", &[2, 0]);
        }),
        ("pairs-", None, |t| named(t, "checks").dtype = Dtype::F64),
        ("pairs-", None, |t| named(t, "mean").name = "32x32.mean".to_owned()),
        ("text-", None, |t| reshape(t, "checks", &[1, 3])),
        ("text-", None, |t| {
            let [n, tokens, width] = named(t, "hidden").shape[..] else { panic!() };
            reshape(t, "hidden", &[n, width, tokens]);
        }),
        ("text-", None, |t| {
            let pooled = Raw { name: "pooled".to_owned(), ..named(t, "checks").clone() };
            t.push(Raw { dtype: Dtype::F32, shape: vec![3, 2], ..pooled });
        }),
        ("text-", None, |t| {
            let hidden = named(t, "hidden");
            (hidden.shape[1], hidden.bytes) = (0, Vec::new());
        }),
    ];
    for (number, (start, skipped, change)) in crafts.into_iter().enumerate() {
        let made = Made::new();
        made.craft(start, skipped, change);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| made.used()));
        assert!(found.is_ok_and(|used| used.is_err()), "craft {number} is taken, or ends in a panic");
    }
}

#[test]
fn a_shard_that_is_cut_while_it_is_open_is_an_error() {
    let made = Made::new();
    for start in ["pairs-", "text-"] {
        let folder = CacheFolder::open(made.folder.path(), &made.key).unwrap();
        let pairs = open(&folder, &made.key, &made.source, None);
        let path = made.path(start);
        let whole = fs::read(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
        let error = pairs.batch(&uses([(2, 2)].into_iter()), &options(false)).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("is damaged"), "{error}");
        fs::write(&path, whole).unwrap();
    }
}
