//! Damaged safetensors files, indices and configurations are answered, whatever the damage: without a panic,
//! soon, and in little memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod damage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use damage::{each_damaged, within_limits};
use tastemaker_store::{StoreError, json};
use tastemaker_weights::open_component;
use tastemaker_weights::safetensors::{Dtype, Metadata, SafeTensorsFile, TensorView, write};

/// The recorded files under `golden` that have this ending and are small.
fn recorded(area: &str, ending: &str) -> Vec<Vec<u8>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(area)];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let files: Vec<_> =
        paths.iter().map(|path| fs::read(path).unwrap()).filter(|bytes| bytes.len() < 10_000).collect();
    assert!(files.len() > 2, "no recorded files in golden/{area}");
    files
}

/// Errors name the trouble and do not repeat the whole file.
fn check<T>(n_bytes: usize, read: impl FnOnce() -> Result<T, StoreError>) {
    if let Err(error) = within_limits(n_bytes, read) {
        assert!(error.to_string().len() < 16_384, "{error}");
    }
}

#[test]
fn damaged_files_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    let files = recorded("pickle", ".safetensors");
    each_damaged(5000, &files, |bytes| {
        let bytes = Arc::new(bytes.to_vec());
        check(bytes.len(), || SafeTensorsFile::over("damaged", bytes.clone()));
    });
    each_damaged(1000, &files, |bytes| {
        fs::write(path("w.safetensors"), bytes).unwrap();
        check(bytes.len(), || SafeTensorsFile::open(path("w.safetensors")));
    });

    let shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
    for (shard, names) in shards.iter().zip([["a", "b"], ["c", "d"]]) {
        let views = names.map(|name| TensorView { name, dtype: Dtype::U8, shape: &[2], bytes: &[1, 2] });
        write(path(shard), &views, &Metadata::new()).unwrap();
    }
    let map = serde_json::json!({ "a": shards[0], "b": shards[0], "c": shards[1], "d": shards[1] });
    let index = serde_json::json!({ "metadata": { "total_size": 8 }, "weight_map": map }).to_string();
    let index_path = path("m.safetensors.index.json");
    fs::write(&index_path, &index).unwrap();
    assert_eq!(open_component(folder.path(), "m").unwrap().len(), 4);
    each_damaged(1000, &[index.into_bytes()], |bytes| {
        fs::write(&index_path, bytes).unwrap();
        check(bytes.len(), || open_component(folder.path(), "m"));
    });

    each_damaged(1000, &recorded("models", "config.json"), |bytes| {
        fs::write(path("config.json"), bytes).unwrap();
        check(bytes.len(), || json::read::<serde_json::Value>(path("config.json")));
    });
}
