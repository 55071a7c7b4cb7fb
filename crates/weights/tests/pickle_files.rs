//! Files that torch.save wrote hold the tensors recorded beside them, or are refused with the reason.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tastemaker_store::StoreError;
use tastemaker_weights::pickle::LegacyFile;
use tastemaker_weights::safetensors::{Dtype, SafeTensorsFile};
use tastemaker_weights::{Weights, open_component};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/pickle").join(name)
}

/// The recorded file `<name>.bin` holds exactly the tensors of `<expected>.safetensors`.
fn check(name: &str, expected: &str) {
    let file = LegacyFile::open(golden(&format!("{name}.bin"))).unwrap();
    let recorded = SafeTensorsFile::open(golden(&format!("{expected}.safetensors"))).unwrap();
    let (ours, theirs): (Vec<_>, Vec<_>) = (file.tensors().collect(), recorded.tensors().collect());
    assert_eq!(ours, theirs, "{name}");
    for tensor in theirs {
        assert_eq!(file.get(tensor.name), Some(tensor), "{name}");
    }
}

fn refusal(name: &str) -> String {
    let error = LegacyFile::open(golden(name)).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn every_element_type_is_read() {
    check("mixed", "mixed");
    let file = LegacyFile::open(golden("mixed.bin")).unwrap();
    assert_eq!(file.get("block.bf16").unwrap().dtype, Dtype::BF16);
    assert!(file.get("scale").unwrap().shape.is_empty());
    assert!(file.get("empty").unwrap().bytes.is_empty());
    assert!(file.get("absent").is_none());
}

#[test]
fn every_protocol_is_read() {
    for protocol in 3..=5 {
        check(&format!("mixed-protocol{protocol}"), "mixed");
    }
}

#[test]
fn the_state_dict_of_a_module_is_read() {
    check("module", "module");
}

#[test]
fn a_state_dict_below_the_top_is_read() {
    check("module-nested", "module");
}

#[test]
fn parameters_are_read_as_their_tensors() {
    check("module-parameters", "module");
}

#[test]
fn tensors_may_share_a_storage_and_begin_inside_it() {
    check("shared", "shared");
    let file = LegacyFile::open(golden("shared.bin")).unwrap();
    let bytes = |name| file.get(name).unwrap().bytes.as_ptr_range();
    assert_eq!(bytes("whole"), bytes("same"));
    assert_eq!(bytes("row").end, bytes("whole").end);
}

#[test]
fn classes_may_be_named_in_a_file_that_never_makes_one() {
    check("lightning", "lightning");
}

#[test]
fn a_file_that_runs_a_command_is_refused_and_the_command_is_not_run() {
    let message = refusal("hostile.bin");
    assert!(message.contains("a call of `posix.system` at byte"), "{message}");
    assert!(message.contains("nothing of the file has been run"), "{message}");
    assert!(!Path::new("was-executed").exists());
}

#[test]
fn a_transposed_tensor_is_refused_by_name() {
    let message = refusal("strided.bin");
    assert!(message.contains("tensor `across` of shape [4, 3] with strides [1, 4]"), "{message}");
}

#[test]
fn older_formats_are_refused_with_advice() {
    for (name, format) in
        [("before-1.6.bin", "the format of torch before 1.6"), ("before-0.2.bin", "a tar archive")]
    {
        let message = refusal(name);
        assert!(message.contains(format) && message.contains("convert it to safetensors"), "{message}");
    }
}

#[test]
fn other_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (contents, found) in [
        (&b""[..], "the file is empty"),
        (b"\x80\x02}.", "a bare pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"PK\x03\x04", "no archive directory"),
    ] {
        let path = folder.path().join("w.bin");
        fs::write(&path, contents).unwrap();
        let message = LegacyFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    assert!(matches!(LegacyFile::open(folder.path().join("none.bin")), Err(StoreError::Missing { .. })));
}

fn names(weights: &Weights) -> Vec<&str> {
    weights.tensors().map(|tensor| tensor.name).collect()
}

#[test]
fn a_component_is_read_from_legacy_files_only_where_there_are_no_others() {
    for (stem, legacy) in
        [("diffusion_pytorch_model", "diffusion_pytorch_model.bin"), ("model", "pytorch_model.bin")]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(golden("module.bin"), folder.path().join(legacy)).unwrap();
        let weights = open_component(folder.path(), stem).unwrap();
        assert_eq!(names(&weights), ["0.bias", "0.weight", "1.bias", "1.weight"]);
        assert_eq!(weights.files()[0].path(), folder.path().join(legacy));

        let half = folder.path().join(format!("{stem}.fp16.safetensors"));
        fs::copy(golden("lightning.safetensors"), half).unwrap();
        assert_eq!(names(&open_component(folder.path(), stem).unwrap()), ["bias", "weight"]);
    }
}

#[test]
fn legacy_shards_are_one_component() {
    let folder = tempfile::tempdir().unwrap();
    let shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    fs::copy(golden("module.bin"), folder.path().join(shards[0])).unwrap();
    fs::copy(golden("lightning.bin"), folder.path().join(shards[1])).unwrap();
    let all = ["0.bias", "0.weight", "1.bias", "1.weight", "bias", "weight"];
    let map: BTreeMap<_, _> =
        all.iter().map(|name| (name, shards[usize::from(!name.contains('.'))])).collect();
    let index = serde_json::json!({ "weight_map": map });
    fs::write(folder.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    assert_eq!(names(&open_component(folder.path(), "model").unwrap()), all);
}

#[test]
fn an_index_of_safetensors_never_leads_to_a_pickle() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden("module.bin"), folder.path().join("model.bin")).unwrap();
    let index = r#"{"weight_map":{"0.bias":"model.bin"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let message = open_component(folder.path(), "model").unwrap_err().to_string();
    assert!(message.contains("shard `model.bin`"), "{message}");
}
