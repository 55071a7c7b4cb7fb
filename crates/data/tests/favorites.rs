//! Single images that people like, with captions and nothing else.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::fs;
use std::path::Path;

use image::RgbImage;
use tastemaker_data::formats::{OpenSettings, open_with};
use tastemaker_data::set::PairSet;
use tastemaker_data::{DataError, Label, PairSource, Side};
use tastemaker_store::tree::Location;

fn opened(folder: &Path, settings: &OpenSettings) -> Result<PairSet, DataError> {
    open_with(&Location::local(folder).unwrap(), settings)
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with(".png") {
            true => RgbImage::new(4, 4).save(path).unwrap(),
            false => fs::write(path, text).unwrap(),
        }
    }
}

#[test]
fn a_folder_of_favorites_is_read_as_liked_images_and_methods_of_pairs_say_what_they_need() {
    for (files, captions) in [
        (
            &[("a.png", ""), ("a.txt", " a fox\n"), ("b.png", ""), ("b.caption", "a house")][..],
            ["a fox", "a house"],
        ),
        (&[("10_fox/a.png", ""), ("10_fox/a.txt", "a red fox"), ("10_fox/b.png", "")], ["a red fox", "fox"]),
        (
            &[
                ("a.png", ""),
                ("b.png", ""),
                (
                    "metadata.jsonl",
                    "{\"file_name\": \"a.png\", \"text\": \"a fox\"}\n{\"file_name\": \"b.png\", \"text\": \"a house\"}\n",
                ),
            ],
            ["a fox", "a house"],
        ),
        (
            &[("a.png", ""), ("b.png", ""), ("metadata.csv", "file_name,text\na.png,a fox\nb.png,a house\n")],
            ["a fox", "a house"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), files);
        let kto =
            opened(folder.path(), &OpenSettings { unpaired: true, liked: true, ..OpenSettings::default() })
                .unwrap();
        let sft = opened(folder.path(), &OpenSettings { liked: true, ..OpenSettings::default() }).unwrap();
        for (set, label) in [(&kto, Some(Label::Liked)), (&sft, None)] {
            let found: Vec<&str> = (0..set.len()).map(|position| set.caption(position)).collect();
            assert_eq!(found, captions, "{files:?}");
            assert!((0..set.len()).all(|position| set.label(position) == label), "{files:?}");
            set.image(0, Side::Winner).unwrap();
        }
        let refused = opened(folder.path(), &OpenSettings::default()).unwrap_err().to_string();
        assert!(refused.contains("looks like single images with captions; pairs need "), "{refused}");
        assert!(refused.contains("--method sft or kto"), "{refused}");
    }
}

#[test]
fn a_list_of_liked_images_alone_does_for_a_method_without_losers() {
    let folder = tempfile::tempdir().unwrap();
    let row = |name: &str, label: u8| {
        format!("{{\"file_name\": \"{name}.png\", \"label\": {label}, \"caption\": \"a fox\"}}\n")
    };
    write(folder.path(), &[("a.png", ""), ("b.png", "")]);
    let settings = OpenSettings { liked: true, ..OpenSettings::default() };
    fs::write(folder.path().join("metadata.jsonl"), row("a", 1) + &row("b", 1)).unwrap();
    assert_eq!(opened(folder.path(), &settings).unwrap().len(), 2);
    assert!(opened(folder.path(), &OpenSettings::default()).is_err());
    // Where there are pairs, they are what they were.
    fs::write(folder.path().join("metadata.jsonl"), row("a", 1) + &row("b", 0)).unwrap();
    assert_eq!(opened(folder.path(), &settings).unwrap().len(), 1);
    // A list that labels some rows and not others is not guessed at: what comes after the first kind is skipped by name.
    let bare = "{\"file_name\": \"a.png\", \"caption\": \"a fox\"}\n".to_owned();
    fs::write(folder.path().join("metadata.jsonl"), bare + &row("b", 0)).unwrap();
    let set = opened(folder.path(), &settings).unwrap();
    assert_eq!((set.len(), set.skipped().len()), (1, 1));
}
