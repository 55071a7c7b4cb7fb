//! The committed files under `assets/demo` are what their manifest and documentation say. No network, no npm.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::de::DeserializeOwned;
use tastemaker_assets::art::{CELL, COLUMNS, STYLES};
use tastemaker_assets::bpe::{Bpe, END, N_ENTRIES, START, words};
use tastemaker_assets::captions::{Caption, HELD_OUT_FRACTION, Split, split_of};
use tastemaker_assets::hash::{sha256_hex, unit_interval};
use tastemaker_assets::manifest::{COMMAND, Manifest};
use tastemaker_assets::safety::{SAFETY_HELD_OUT_FRACTION, SIGN, Safety};
use tastemaker_assets::sources::SOURCES;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

fn text(path: &str) -> String {
    fs::read_to_string(demo().join(path)).unwrap()
}

fn json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_str(&text(path)).unwrap()
}

fn captions() -> Vec<Caption> {
    json("captions.json")
}

fn atlas(name: &str) -> RgbImage {
    let image = image::open(demo().join("art").join(format!("{name}.png"))).unwrap();
    assert_eq!(image.color(), image::ColorType::Rgb8, "{name}");
    image.into_rgb8()
}

fn cell(sheet: &RgbImage, index: u32) -> RgbImage {
    let (x, y) = (index % COLUMNS * CELL, index / COLUMNS * CELL);
    image::imageops::crop_imm(sheet, x, y, CELL, CELL).to_image()
}

fn bpe() -> Bpe {
    Bpe::parse(&text("tokenizer/vocab.json"), &text("tokenizer/merges.txt")).unwrap()
}

#[test]
fn every_listed_file_has_its_size_and_hash() {
    let manifest: Manifest = json("manifest.json");
    assert_eq!(manifest.command, COMMAND);
    for file in &manifest.files {
        let content = fs::read(demo().join(&file.path)).unwrap();
        assert_eq!(content.len() as u64, file.bytes, "{}", file.path);
        assert_eq!(sha256_hex(&content), file.sha256, "{}", file.path);
    }
}

#[test]
fn every_built_file_is_listed_and_the_total_is_under_five_million_bytes() {
    let manifest: Manifest = json("manifest.json");
    let listed: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(listed.len(), manifest.files.len());
    for folder in ["art", "tokenizer", "LICENSES"] {
        for entry in fs::read_dir(demo().join(folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            assert!(listed.contains(path.as_str()), "{path}");
        }
    }
    assert!(manifest.files.iter().map(|file| file.bytes).sum::<u64>() < 5_000_000);
}

#[test]
fn the_manifest_names_the_pinned_sources_and_no_share_alike_license() {
    let manifest: Manifest = json("manifest.json");
    let pinned: Vec<_> = SOURCES.iter().map(|s| (s.package, s.version, s.sha256, s.license)).collect();
    let listed: Vec<_> = manifest
        .sources
        .iter()
        .map(|s| (s.package.as_str(), s.version.as_str(), s.sha256.as_str(), s.license.as_str()))
        .collect();
    assert_eq!(listed, pinned);
    assert!(manifest.files.iter().all(|file| !file.license.contains("-SA-")));
}

#[test]
fn captions_are_unique_lower_case_and_456_in_three_groups() {
    let captions = captions();
    let count = |group: &str| captions.iter().filter(|caption| caption.group == group).count();
    assert_eq!((count("smileys-emotion"), count("animals-nature"), count("food-drink")), (168, 158, 130));
    assert_eq!(captions.len(), 456);
    let labels: BTreeSet<&str> = captions.iter().map(|caption| caption.label.as_str()).collect();
    let codes: BTreeSet<&str> = captions.iter().map(|caption| caption.code.as_str()).collect();
    assert_eq!((labels.len(), codes.len()), (456, 456));
    for caption in &captions {
        assert_eq!(caption.label, caption.label.to_lowercase());
        assert!(!caption.tags.is_empty(), "{}", caption.label);
    }
}

#[test]
fn the_split_is_the_hash_of_the_code() {
    // SHA-256("1f600") begins 30 8e 7b 21, checked with an independent implementation.
    assert_eq!(unit_interval("1f600"), f64::from(0x308e_7b21_u32) / 4_294_967_296.0);
    let captions = captions();
    for caption in &captions {
        assert_eq!(caption.split, split_of(&caption.code, HELD_OUT_FRACTION), "{}", caption.label);
    }
    let n_held_out = captions.iter().filter(|caption| caption.split == Split::HeldOut).count();
    assert_eq!(n_held_out, 89);
}

#[test]
fn atlases_hold_one_cell_per_caption() {
    let rows = 456_u32.div_ceil(COLUMNS);
    for style in STYLES {
        assert_eq!(atlas(style.name).dimensions(), (COLUMNS * CELL, rows * CELL), "{}", style.name);
        assert_eq!(atlas(&format!("{}-extra", style.name)).dimensions(), (CELL, CELL), "{}", style.name);
    }
}

#[test]
fn cells_are_inked_and_on_white() {
    for style in STYLES {
        let sheet = atlas(style.name);
        for (index, caption) in (0_u32..).zip(captions()) {
            let cell = cell(&sheet, index);
            let n_inked = cell.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
            assert!(n_inked > 150, "{} {}: {n_inked} inked pixels", style.name, caption.label);
            let corners = [(0, 0), (CELL - 1, 0), (0, CELL - 1), (CELL - 1, CELL - 1)];
            let n_white = corners.iter().filter(|(x, y)| cell.get_pixel(*x, *y).0 == [255; 3]).count();
            // Fluent draws this one as a sky that fills the square.
            let fills_the_square = caption.label == "face in clouds" && style.name.starts_with("fluent");
            assert!(n_white >= 2 || fills_the_square, "{} {}", style.name, caption.label);
        }
    }
}

#[test]
fn only_two_pairs_of_captions_share_a_drawing() {
    let mut repeats = Vec::new();
    for style in STYLES {
        let sheet = atlas(style.name);
        let mut first: HashMap<Vec<u8>, String> = HashMap::new();
        for (index, caption) in (0_u32..).zip(captions()) {
            let drawing = cell(&sheet, index).into_raw();
            if let Some(earlier) = first.get(&drawing) {
                repeats.push((style.name, earlier.clone(), caption.label));
            } else {
                first.insert(drawing, caption.label);
            }
        }
    }
    let known = [
        ("fluent-flat", "grinning cat".to_owned(), "cat face".to_owned()),
        ("fluent-high-contrast", "enraged face".to_owned(), "angry face".to_owned()),
    ];
    assert_eq!(repeats, known);
}

#[test]
fn high_contrast_is_grey_and_the_other_styles_are_not() {
    for style in STYLES {
        let colored = atlas(style.name).pixels().any(|pixel| pixel[0] != pixel[1] || pixel[1] != pixel[2]);
        assert_eq!(colored, style.name != "fluent-high-contrast", "{}", style.name);
    }
}

#[test]
fn the_safety_list_refers_to_captions_and_trains_only_on_training_images() {
    let safety: Safety = json("safety.json");
    let captions = captions();
    let find = |code: &str| captions.iter().find(|caption| caption.code == code).unwrap();
    let refused: BTreeSet<&str> = safety.refused.iter().map(|entry| entry.code.as_str()).collect();
    assert_eq!(refused.len(), safety.refused.len());
    for entry in &safety.refused {
        assert_eq!(entry.label, find(&entry.code).label);
        assert_eq!(entry.split, split_of(&entry.code, SAFETY_HELD_OUT_FRACTION));
        assert!(find(&entry.code).split == Split::Train || entry.split == Split::HeldOut, "{}", entry.label);
        let alternative = find(&entry.alternative);
        assert_eq!(alternative.split, Split::Train, "{}", alternative.label);
        assert!(!refused.contains(alternative.code.as_str()), "{}", alternative.label);
    }
    for entry in &safety.reviewed_safe {
        assert_eq!(entry.label, find(&entry.code).label);
        assert!(!refused.contains(entry.code.as_str()), "{}", entry.label);
    }
    assert_eq!(safety.replacement.code, SIGN);
    let n_held_out = safety.refused.iter().filter(|entry| entry.split == Split::HeldOut).count();
    assert_eq!((safety.refused.len(), n_held_out, safety.reviewed_safe.len()), (37, 16, 21));
}

#[test]
fn the_vocabulary_has_clip_layout() {
    let bpe = bpe();
    assert_eq!(bpe.entries.len(), N_ENTRIES);
    assert_eq!(bpe.merges.len(), N_ENTRIES - 512 - 2);
    assert_eq!((bpe.entries[0].as_str(), bpe.entries[256].as_str()), ("!", "!</w>"));
    assert_eq!(bpe.entries[N_ENTRIES - 2..], [START, END]);
    for (entry, (left, right)) in bpe.entries[512..].iter().zip(&bpe.merges) {
        assert_eq!(*entry, format!("{left}{right}"));
    }
}

#[test]
fn labels_round_trip_within_fourteen_tokens() {
    let bpe = bpe();
    for caption in captions() {
        let ids = bpe.encode(&caption.label).unwrap();
        assert!(ids.len() <= 14, "{}: {} tokens", caption.label, ids.len());
        assert_eq!(bpe.decode(&ids).unwrap(), words(&caption.label).join(" "));
        for tag in &caption.tags {
            let ids = bpe.encode(tag).unwrap();
            assert!(ids.len() <= 14, "{tag}: {} tokens", ids.len());
            assert_eq!(bpe.decode(&ids).unwrap(), words(tag).join(" "));
        }
    }
}

#[test]
fn ids_agree_with_transformers() {
    // Recorded from CLIPTokenizer of transformers 5.23.0 on the committed folder, special tokens removed.
    let recorded: [(&str, &[usize]); 8] = [
        ("a red apple, PIÑA colada!", &[320, 660, 915, 267, 567, 127, 109, 320, 554, 1055, 320, 256]),
        ("see-no-evil monkey", &[640, 324, 268, 748, 268, 736, 697]),
        ("it's 42 o'clock", &[934, 6, 338, 275, 273, 334, 262, 713, 734]),
        ("ma’am...", &[76, 320, 158, 222, 503, 64, 332, 13, 13, 269]),
        ("\tbeer  mug\n", &[918, 1298]),
        ("🍎 葡萄", &[172, 253, 235, 492, 164, 239, 94, 164, 238, 482]),
        ("GRINNING Cat's face", &[629, 588, 6, 338, 515]),
        ("", &[]),
    ];
    let bpe = bpe();
    for (text, ids) in recorded {
        assert_eq!(bpe.encode(text).unwrap(), ids, "{text:?}");
    }
}
