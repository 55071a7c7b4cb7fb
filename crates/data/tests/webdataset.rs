//! Pairs in tar files, whole and hostile.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod support;

use std::fs;
use std::path::Path;

use support::{open_mapped, pairs, png, skipped};
use tastemaker_data::formats::open;
use tastemaker_data::{DataError, PairSource, Reason};
use tastemaker_store::StoreError;
use tempfile::TempDir;

/// A tar file of members, in order.
fn tarred(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn folder(members: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("00000.tar"), tarred(members)).unwrap();
    folder
}

fn complaint(folder: &Path) -> String {
    let error = open(folder).unwrap_err();
    assert!(matches!(error, DataError::Store(StoreError::Malformed { .. })), "{error:?}");
    error.to_string()
}

#[test]
fn every_documented_way_of_naming_members_is_read() {
    let (one, two) = (png(1), png(2));
    let json = br#"{"label_0": 0, "label_1": 1, "caption": "a fox"}"#.as_slice();
    for members in [
        // as the ORPO example of diffusers names them
        [
            ("jpg_0.jpg", two.as_slice()),
            ("jpg_1.jpg", &one),
            ("label_0.txt", b"1"),
            ("label_1.txt", b"0\n"),
            ("original_prompt.txt", b"a fox"),
        ]
        .as_slice(),
        &[("jpg_0", &one), ("jpg_1", &two), ("json", json)],
        &[("0.png", &one), ("1.png", &two), ("json", json)],
        &[("winner.webp", &two), ("loser.png", &one), ("txt", b"a fox"), ("embedding.npy", b"\x93")],
        &[("chosen.jpg", &two), ("rejected.jpg", &one), ("prompt.txt", b"a fox\n")],
    ] {
        let named: Vec<(String, &[u8])> =
            members.iter().map(|(name, bytes)| (format!("a/7.{name}"), *bytes)).collect();
        let named: Vec<(&str, &[u8])> = named.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let folder = folder(&named);
        let set = open(folder.path()).unwrap();
        assert_eq!(pairs(&set), [(0, 2, 1, "a fox")], "{members:?}");
    }
}

#[test]
fn rows_are_counted_through_files_and_bad_ones_skipped() {
    let (one, two) = (png(1), png(2));
    let first = tarred(&[
        ("0.winner.png", &one),
        ("0.loser.png", &two),
        ("0.txt", b"a"),
        ("1.winner.png", &one),
        ("1.txt", b"b"),
        ("2.winner.png", &one),
        ("2.winner.jpg", &one),
        ("2.loser.png", &two),
        ("README", b"nothing"),
    ]);
    let second = tarred(&[("0.winner.png", &two), ("0.loser.png", &one), ("0.txt", b"c")]);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/a.tar"), first).unwrap();
    fs::write(folder.path().join("data/b.tar"), second).unwrap();
    let set = open(folder.path()).unwrap();
    assert_eq!(pairs(&set), [(0, 1, 2, "a"), (3, 2, 1, "c")]);
    assert_eq!(skipped(&set), [(1, Reason::MissingImage), (2, Reason::BadRow)]);
    assert_eq!(set.place(set.id(1)), "row 0 of data/b.tar");
    assert!(set.file(1, tastemaker_data::Side::Winner).ends_with("data/b.tar/0.winner.png"));
}

#[test]
fn single_images_with_a_class_pair_up_and_a_mapping_renames_members() {
    let (one, two) = (png(1), png(2));
    let folder1 = folder(&[
        ("0.jpg", &one),
        ("0.cls", b"0"),
        ("0.txt", b"a"),
        ("1.jpg", &two),
        ("1.cls", b"1"),
        ("1.txt", b"a"),
    ]);
    assert_eq!(pairs(&open(folder1.path()).unwrap()), [(1, 2, 1, "a")]);
    let folder2 = folder(&[("0.good.png", &one), ("0.bad.png", &two), ("0.words.txt", b"a")]);
    let mapping = [("winner", "good"), ("loser", "bad"), ("caption", "words")];
    assert_eq!(pairs(&open_mapped(folder2.path(), &mapping).unwrap()), [(0, 1, 2, "a")]);
}

#[test]
fn long_names_and_attributes_are_read() {
    let long = format!("{}/x", "deep".repeat(40));
    let (one, two) = (png(1), png(2));
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("mtime", b"1700000000.5".as_slice())]).unwrap();
    for (end, bytes) in [("winner.png", &one), ("loser.png", &two)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("{long}.{end}"), bytes.as_slice()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    builder.append_data(&mut header, format!("{long}.txt"), b"a".as_slice()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.tar"), builder.into_inner().unwrap()).unwrap();
    assert_eq!(pairs(&open(folder.path()).unwrap()), [(0, 1, 2, "a")]);
}

#[test]
fn a_file_cut_anywhere_names_the_member_before() {
    let image = png(1);
    let whole = tarred(&[("0.winner.png", &image), ("0.loser.png", &image), ("0.txt", b"a")]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    fs::write(&path, &whole[..1024 + 512 + 9]).unwrap();
    let text = complaint(folder.path());
    assert!(text.contains("0.loser.png of") && text.contains("after 0.winner.png"), "{text}");
    for cut in (1..whole.len() - 1024).step_by(101).chain([1024, 2048, whole.len() - 1024]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let text = complaint(folder.path());
        assert!(text.contains("wanted a whole tar file"), "{cut}: {text}");
        assert!(text.contains("after its start") || text.contains("after 0."), "{cut}: {text}");
    }
}

#[test]
fn links_and_names_that_lead_out_are_refused_by_name() {
    let refused = |name: &str, kind: tar::EntryType| {
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        if kind.is_symlink() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, std::io::empty()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.tar"), builder.into_inner().unwrap()).unwrap();
        complaint(folder.path())
    };
    for name in ["/etc/0.winner.png", "../0.winner.png", "a/../../0.winner.png"] {
        let text = refused(name, tar::EntryType::Regular);
        assert!(text.contains(&format!("the member {name:?}, a name that leads elsewhere")), "{text}");
    }
    assert!(refused("0.winner.png", tar::EntryType::Symlink).contains("\"0.winner.png\", a link"));
    assert!(refused("0.winner.png", tar::EntryType::Char).contains("neither file nor folder"));
}

#[test]
fn text_in_an_archive_names_no_file_outside() {
    let (one, json) = (png(1), br#"{"loser": "secret.png", "caption": "a"}"#);
    let folder = folder(&[("0.winner.png", &one), ("0.json", json)]);
    fs::write(folder.path().join("secret.png"), png(9)).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("1 with an image that is not there"), "{error}");
}

#[test]
fn a_header_that_claims_endless_attributes_stops() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(8 << 20);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + (8 << 20) + 1024, b'a');
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.tar"), bytes).unwrap();
    assert!(complaint(folder.path()).contains("a header without an end"));
}
