//! Writing and reading agree with each other, with the reference crate, and across shards.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;
use tastemaker_store::StoreError;
use tastemaker_weights::safetensors::{Dtype, Header, Metadata, SafeTensorsFile, TensorView, write};
use tastemaker_weights::{WeightFile, has_variant, open_component, open_component_with};

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn tensor<'a>(name: &'a str, shape: &'a [usize], bytes: &'a [u8]) -> TensorView<'a> {
    TensorView { name, dtype: Dtype::F32, shape, bytes }
}

fn metadata() -> Metadata {
    BTreeMap::from([("format".into(), "pt".into())])
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let (a, b) = (f32_bytes(&[1.0, 2.0, 3.0, 4.0]), f32_bytes(&[5.0]));
    let flags = TensorView { name: "flags", dtype: Dtype::U8, shape: &[3], bytes: &[7, 8, 9] };
    write(&path, &[flags, tensor("b", &[], &b), tensor("a", &[2, 2], &a)], &metadata()).unwrap();

    let file = SafeTensorsFile::open(&path).unwrap();
    let read: Vec<_> = file.tensors().collect();
    assert_eq!(read, [tensor("a", &[2, 2], &a), tensor("b", &[], &b), flags]);
    assert_eq!(file.metadata(), &metadata());
    assert_eq!(&Header::read(&path).unwrap(), file.header());
}

#[test]
fn the_bytes_are_those_of_the_reference_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let (a, b) = (f32_bytes(&[1.0, 2.0]), f32_bytes(&[3.0]));
    let half = TensorView { name: "0", dtype: Dtype::F16, shape: &[1], bytes: &[0, 60] };
    write(&path, &[half, tensor("b", &[1], &b), tensor("a", &[2], &a)], &metadata()).unwrap();

    let ours = std::fs::read(&path).unwrap();
    let reference: Vec<_> = SafeTensors::deserialize(&ours).unwrap().tensors();
    let theirs = safetensors::serialize(
        reference.iter().map(|(name, view)| (name.as_str(), view)),
        Some(metadata().into_iter().collect()),
    )
    .unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn the_order_given_does_not_reach_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let bytes = f32_bytes(&[1.0]);
    let (a, b) = (tensor("a", &[1], &bytes), tensor("b", &[1], &bytes));
    write(&one, &[a, b], &metadata()).unwrap();
    write(&two, &[b, a], &metadata()).unwrap();
    assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
}

#[test]
fn the_data_is_aligned_for_every_element_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let bytes = [0; 8];
    let odd = TensorView { name: "a", dtype: Dtype::U8, shape: &[3], bytes: &bytes[..3] };
    let wide = TensorView { name: "z", dtype: Dtype::F64, shape: &[1], bytes: &bytes };
    write(&path, &[odd, wide], &Metadata::new()).unwrap();
    let header = Header::read(&path).unwrap();
    assert_eq!(header.data_start % 8, 0);
    assert_eq!(header.get("z").unwrap().range, 0..8);
}

#[test]
fn a_tensor_whose_bytes_do_not_fit_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    for bad in [tensor("a", &[2], &[0; 4]), tensor("__metadata__", &[], &[0; 4])] {
        assert!(matches!(write(&path, &[bad], &metadata()), Err(StoreError::Malformed { .. })));
    }
    let twin = tensor("a", &[], &[0; 4]);
    assert!(matches!(write(&path, &[twin, twin], &metadata()), Err(StoreError::Malformed { .. })));
    assert!(!path.exists());
}

#[test]
fn a_missing_file_is_told_apart_from_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(SafeTensorsFile::open(folder.path().join("none")), Err(StoreError::Missing { .. })));
}

/// Two shards of one tensor each, and an index over them.
fn shards(folder: &Path, weight_map: &str) {
    let bytes = f32_bytes(&[1.0]);
    for (shard, name) in [("m-00001-of-00002.safetensors", "a"), ("m-00002-of-00002.safetensors", "b")] {
        write(folder.join(shard), &[tensor(name, &[1], &bytes)], &metadata()).unwrap();
    }
    let index = format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{weight_map}}}"#);
    std::fs::write(folder.join("m.safetensors.index.json"), index).unwrap();
}

#[test]
fn shards_are_one_component() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), r#"{"b":"m-00002-of-00002.safetensors","a":"m-00001-of-00002.safetensors"}"#);
    let weights = open_component(folder.path(), "m").unwrap();
    assert_eq!(weights.tensors().map(|t| t.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(weights.get("b").unwrap().bytes, f32_bytes(&[1.0]));
    assert_eq!(weights.files().len(), 2);
    assert!(weights.get("c").is_none());
}

#[test]
fn an_index_that_disagrees_with_its_shards_reports_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), r#"{"a":"m-00001-of-00002.safetensors","c":"m-00002-of-00002.safetensors"}"#);
    let message = open_component(folder.path(), "m").unwrap_err().to_string();
    assert!(message.contains("`b` in m-00002-of-00002.safetensors but not listed"), "{message}");
    assert!(message.contains("`c` listed in m-00002-of-00002.safetensors but not there"), "{message}");
}

#[test]
fn a_missing_shard_is_named() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), r#"{"a":"m-00001-of-00002.safetensors","b":"m-00003-of-00002.safetensors"}"#);
    let error = open_component(folder.path(), "m").unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }));
    assert!(error.path().unwrap().ends_with("m-00003-of-00002.safetensors"));
}

#[test]
fn an_index_cannot_point_outside_its_folder() {
    for shard in ["../m.safetensors", "/etc/passwd", "sub/m.safetensors", "..", "", "a\\\\b"] {
        let folder = tempfile::tempdir().unwrap();
        shards(folder.path(), &format!(r#"{{"a":"{shard}"}}"#));
        let error = open_component(folder.path(), "m").unwrap_err();
        assert!(matches!(error, StoreError::Malformed { .. }), "{shard}: {error:?}");
    }
}

#[test]
fn full_precision_is_preferred_to_half() {
    let folder = tempfile::tempdir().unwrap();
    let (full, half) = (f32_bytes(&[1.0]), f32_bytes(&[0.5]));
    write(folder.path().join("m.fp16.safetensors"), &[tensor("a", &[1], &half)], &metadata()).unwrap();
    assert_eq!(open_component(folder.path(), "m").unwrap().get("a").unwrap().bytes, half);
    write(folder.path().join("m.safetensors"), &[tensor("a", &[1], &full)], &metadata()).unwrap();
    assert_eq!(open_component(folder.path(), "m").unwrap().get("a").unwrap().bytes, full);
}

#[test]
fn a_variant_that_is_asked_for_goes_before_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, chosen) = (f32_bytes(&[1.0]), f32_bytes(&[0.5]));
    let open = |variant| {
        let weights =
            open_component_with(folder.path(), "m", variant, |path| WeightFile::open(path)).unwrap();
        weights.get("a").unwrap().bytes.to_vec()
    };
    write(folder.path().join("m.safetensors"), &[tensor("a", &[1], &plain)], &metadata()).unwrap();
    assert!(!has_variant(folder.path(), "m", "ema"));
    assert_eq!(open(Some("ema")), plain, "a component without the variant goes with what it has");
    write(folder.path().join("m.ema.safetensors"), &[tensor("a", &[1], &chosen)], &metadata()).unwrap();
    assert!(has_variant(folder.path(), "m", "ema"));
    assert_eq!((open(Some("ema")), open(None)), (chosen, plain));
}

#[test]
fn an_empty_folder_says_what_would_have_served() {
    let folder = tempfile::tempdir().unwrap();
    let message = open_component(folder.path(), "model").unwrap_err().to_string();
    assert!(message.contains("model.safetensors.index.json, model.fp16.safetensors"), "{message}");
}

proptest! {
    #[test]
    fn any_tensors_survive_the_disk(
        tensors in proptest::collection::btree_map("\\PC{0,12}", (0usize..4, 0usize..4, any::<u8>()), 0..8),
        metadata in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let owned: Vec<_> = tensors.iter()
            .map(|(name, &(h, w, fill))| (name, [h, w], vec![fill; 2 * h * w]))
            .collect();
        let views: Vec<_> = owned.iter()
            .map(|(name, shape, bytes)| TensorView { name, dtype: Dtype::BF16, shape, bytes })
            .collect();
        write(&path, &views, &metadata).unwrap();
        let file = SafeTensorsFile::open(&path).unwrap();
        prop_assert_eq!(file.tensors().collect::<Vec<_>>(), views);
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert!(SafeTensors::deserialize(&std::fs::read(&path).unwrap()).is_ok());
    }
}

#[test]
fn a_file_of_another_kind_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, what) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00archive/data.pkl", "name it .ckpt"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00 some notes.txt in an archive", "a zip archive"),
        (b"\x80\x02}q\x00(X\x05\x00\x00\x00hello", "a pickle"),
        (b"{\"error\":\"Repository not found\"}", "JSON"),
    ] {
        for name in ["model.safetensors", "model.ckpt"] {
            // What PyTorch's own format begins with is judged by what follows.
            if name == "model.ckpt" && matches!(bytes.first(), Some(b'P' | 0x80)) {
                continue;
            }
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = WeightFile::open(&path).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(name), "{what} in {error}");
            assert!(!error.contains("header of"), "{error}");
        }
    }
    let path = folder.path().join("named.ckpt");
    write(&path, &[tensor("a", &[1], &f32_bytes(&[1.0]))], &metadata()).unwrap();
    assert!(WeightFile::open(&path).unwrap_err().to_string().contains("name it .safetensors"));
}
