//! Each damage is the one its name says.

use std::path::{Path, PathBuf};

use tastemaker_store::StoreError;
use tastemaker_testkit::{Golden, malformed};
use tastemaker_weights::safetensors::{Dtype, SafeTensorsFile};

type Damage = fn(&Path, &Path) -> PathBuf;

fn sound() -> PathBuf {
    Golden::load("models", "clip-text").weights_path()
}

#[test]
fn truncated_overlapping_and_overlong_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let damages: [Damage; 3] = [malformed::truncated, malformed::header_too_long, malformed::overlapping];
    let complaints = damages.map(|damage| {
        let refused = SafeTensorsFile::open(damage(&sound(), folder.path())).unwrap_err();
        assert!(matches!(refused, StoreError::Malformed { .. }), "{refused:?}");
        refused.to_string()
    });
    assert_ne!(complaints[0], complaints[1]);
    assert_ne!(complaints[0], complaints[2]);
    assert_ne!(complaints[1], complaints[2]);
}

#[test]
fn another_type_shape_or_name_still_opens_but_differs_in_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let described = |path: &Path| -> Vec<(String, Dtype, Vec<usize>)> {
        let file = SafeTensorsFile::open(path).unwrap();
        file.tensors().map(|t| (t.name.to_owned(), t.dtype, t.shape.to_vec())).collect()
    };
    let before = described(&sound());
    let renamed: Damage = |source, folder| malformed::renamed(source, folder, "stranger");
    for damage in [malformed::wrong_dtype, malformed::wrong_shape, renamed] {
        let after = described(&damage(&sound(), folder.path()));
        assert_eq!(after.len(), before.len());
        assert_eq!(after.iter().filter(|entry| !before.contains(entry)).count(), 1);
    }
}
