//! What a stranger's file may try, and the answer to each.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tastemaker_store::StoreError;
use tastemaker_weights::safetensors::{Header, SafeTensorsFile};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    file_of(header.as_bytes(), data)
}

fn file_of(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// The complaint about these bytes, from memory and from disk alike.
fn refusal(bytes: &[u8]) -> String {
    let in_memory = SafeTensorsFile::over("bad", Arc::new(bytes.to_vec())).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad");
    std::fs::write(&path, bytes).unwrap();
    let on_disk = SafeTensorsFile::open(&path).unwrap_err();
    assert!(matches!(in_memory, StoreError::Malformed { .. }), "{in_memory:?}");
    assert_eq!(on_disk.to_string(), in_memory.to_string().replacen("bad", &path.display().to_string(), 1));
    in_memory.to_string()
}

const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn a_sound_file_opens() {
    let bytes = [1.0f32, 2.0].map(f32::to_le_bytes).concat();
    let file = SafeTensorsFile::over("good", Arc::new(file(GOOD, &bytes))).unwrap();
    assert_eq!(file.get("a").unwrap().bytes, bytes);
    assert_eq!(file.get("a").unwrap().shape, [2]);
}

#[test]
fn every_truncation_is_refused() {
    let whole = file(GOOD, &[0; 8]);
    for n in 0..whole.len() {
        refusal(&whole[..n]);
    }
}

#[test]
fn a_trailing_byte_is_refused() {
    assert!(refusal(&file(GOOD, &[0; 9])).contains("no bytes after the last tensor"));
}

#[test]
fn an_oversized_header_is_refused_before_it_is_read() {
    for n in [100_000_001, u64::MAX, u64::MAX - 7] {
        let mut bytes = n.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        assert!(refusal(&bytes).contains(&format!("a header of {n} bytes")));
    }
}

#[test]
fn a_header_longer_than_the_file_says_truncated() {
    let mut bytes = 4096u64.to_le_bytes().to_vec();
    bytes.extend(GOOD.as_bytes());
    assert!(refusal(&bytes).contains("truncated"));
}

#[test]
fn overlapping_tensors_are_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                     "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    assert!(refusal(&file(header, &[0; 12])).contains("`b` starting at byte 4, overlapping"));
}

#[test]
fn two_names_for_the_same_bytes_are_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                     "b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#;
    assert!(refusal(&file(header, &[0; 8])).contains("overlapping"));
}

#[test]
fn a_hole_between_tensors_is_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                     "b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#;
    assert!(refusal(&file(header, &[0; 12])).contains("leaving a hole"));
}

#[test]
fn a_tensor_outside_the_file_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#;
    assert!(refusal(&file(header, &[0; 8])).contains("ending at byte 4000 of 8"));
}

#[test]
fn offsets_that_run_backwards_are_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[8,0]}}"#;
    assert!(refusal(&file(header, &[0; 8])).contains("at bytes 8..0"));
}

#[test]
fn a_shape_that_disagrees_with_the_bytes_is_refused() {
    let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(refusal(&file(header, &[0; 8])).contains("wanted 4 bytes for type F16 and shape [2]"));
}

#[test]
fn a_shape_that_overflows_is_refused() {
    let header = r#"{"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    refusal(&file(header, &[]));
}

#[test]
fn half_a_byte_is_refused() {
    refusal(&file(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, &[0]));
}

#[test]
fn wrong_types_are_refused_with_the_tensor_named() {
    for (entry, complaint) in [
        (r#"{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#, "F33"),
        (r#"{"dtype":3,"shape":[2],"data_offsets":[0,8]}"#, "`a`"),
        (r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, "-2"),
        (r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#, "2.0"),
        (r#"{"dtype":"F32","shape":2,"data_offsets":[0,8]}"#, "`a`"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8,16]}"#, "`a`"),
        (r#"{"dtype":"F32","shape":[2]}"#, "data_offsets"),
        ("null", "`a`"),
    ] {
        let message = refusal(&file(&format!(r#"{{"a":{entry}}}"#), &[0; 8]));
        assert!(message.contains(complaint) && message.contains("`a`"), "{message}");
    }
}

#[test]
fn metadata_must_be_text() {
    assert!(refusal(&file(r#"{"__metadata__":{"step":3}}"#, &[])).contains("header"));
}

#[test]
fn a_header_that_is_not_an_object_is_refused() {
    for header in ["", "[]", "null", "{", "{}{}", "\"a\""] {
        refusal(&file(header, &[]));
    }
}

#[test]
fn a_name_used_twice_is_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                     "a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    assert!(refusal(&file(header, &[0; 8])).contains("names `a` twice"));
}

#[test]
fn a_header_that_is_not_utf8_says_where() {
    let header = b"{\"caf\xe9\":{}}";
    assert!(refusal(&file_of(header, &[])).contains("not UTF-8 at offset 13"));
}

#[test]
fn deep_nesting_is_refused_without_exhausting_the_stack() {
    refusal(&file(&format!(r#"{{"a":{}"#, "[".repeat(1_000_000)), &[]));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(header in "[\\PC]{0,80}", data in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Header::parse(Path::new("x"), &file(&header, &data));
        let _ = Header::parse(Path::new("x"), &data);
    }

    #[test]
    fn a_flipped_byte_in_the_header_never_panics(at in 0usize..62, with in any::<u8>()) {
        let mut bytes = file(GOOD, &[0; 8]);
        bytes[at] = with;
        let _ = Header::parse(Path::new("x"), &bytes);
    }
}
