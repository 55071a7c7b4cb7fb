//! Each damage is the one its name says.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use tastemaker_testkit::{Golden, malformed};
use tempfile::TempDir;

type Damage = fn(&Path, &Path) -> PathBuf;

fn sound() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = Golden::load("models", "clip-text").install(folder.path(), "model.safetensors");
    (folder, weights)
}

#[test]
fn truncated_overlapping_and_overlong_files_are_refused() {
    let ((_kept, sound), folder) = (sound(), tempfile::tempdir().unwrap());
    let damages: [Damage; 3] = [malformed::truncated, malformed::header_too_long, malformed::overlapping];
    let complaints = damages.map(|damage| {
        let bytes = std::fs::read(damage(&sound, folder.path())).unwrap();
        SafeTensors::deserialize(&bytes).unwrap_err().to_string()
    });
    assert_ne!(complaints[0], complaints[1]);
    assert_ne!(complaints[0], complaints[2]);
    assert_ne!(complaints[1], complaints[2]);
}

#[test]
fn another_type_shape_or_name_differs_in_one_tensor() {
    let ((_kept, sound), folder) = (sound(), tempfile::tempdir().unwrap());
    // The header alone: a tensor of another shape no longer has as many bytes as it says.
    let described = |path: &Path| -> Vec<(String, Dtype, Vec<usize>)> {
        let bytes = std::fs::read(path).unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
        tensors
            .map(|(name, entry)| {
                let part = |key: &str| entry[key].clone();
                (
                    name,
                    serde_json::from_value(part("dtype")).unwrap(),
                    serde_json::from_value(part("shape")).unwrap(),
                )
            })
            .collect()
    };
    let before = described(&sound);
    let renamed: Damage = |source, folder| malformed::renamed(source, folder, "stranger");
    for damage in [malformed::wrong_dtype, malformed::wrong_shape, renamed] {
        let after = described(&damage(&sound, folder.path()));
        assert_eq!(after.len(), before.len());
        assert_eq!(after.iter().filter(|entry| !before.contains(entry)).count(), 1);
    }
}
