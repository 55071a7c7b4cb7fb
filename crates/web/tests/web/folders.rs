//! Folders of images from anywhere, matched by prompt.

use std::path::Path;

use image::{Rgb, RgbImage};
use tastemaker_web::study::{FolderOfImages, Study, StudyPrompt, of_folders};

fn image(folder: &Path, name: &str, shade: u8) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 4, Rgb([shade; 3])).save(path).unwrap();
}

fn study(root: &Path, names: &[&str], prompts: Option<&[&str]>) -> Result<Study, String> {
    let folder = |name: &&str| FolderOfImages { name: (*name).into(), folder: root.join(name) };
    let folders: Vec<FolderOfImages> = names.iter().map(folder).collect();
    let prompt = |text: &&str| StudyPrompt { text: (*text).into(), category: None };
    let prompts: Option<Vec<StudyPrompt>> = prompts.map(|prompts| prompts.iter().map(prompt).collect());
    of_folders("x", &folders, prompts.as_deref()).map_err(|error| error.to_string())
}

/// Prompt, models and shades of every pair.
fn pairs(study: &Study) -> Vec<(String, [u32; 2], [u8; 2])> {
    let shade = |image: u32| {
        image::load_from_memory(&study.images.read(image).unwrap()).unwrap().to_rgb8()[(0, 0)].0[0]
    };
    let pair = |item: &tastemaker_web::study::Item| {
        (study.prompts[item.prompt as usize].text.clone(), item.models, item.images.map(shade))
    };
    study.items.iter().map(pair).collect()
}

#[test]
fn images_are_matched_by_the_number_of_their_prompt_and_by_seed() {
    let root = tempfile::tempdir().unwrap();
    for (name, shade) in [("base/0000-1.png", 1), ("base/0000-2.png", 2), ("base/0001-1.png", 3)] {
        image(root.path(), name, shade);
    }
    for (name, shade) in [("new/0000-2.png", 12), ("new/0000-1.png", 11), ("new/0002-1.png", 13)] {
        image(root.path(), name, shade);
    }
    let study = study(root.path(), &["base", "new"], Some(&["a fox", "rain", "snow"])).unwrap();
    assert_eq!(pairs(&study), [("a fox".into(), [1, 0], [11, 1]), ("a fox".into(), [1, 0], [12, 2])]);
}

#[test]
fn images_of_any_name_are_matched_by_what_metadata_and_texts_say() {
    let root = tempfile::tempdir().unwrap();
    image(root.path(), "closed/x.png", 1);
    image(root.path(), "closed/y.png", 2);
    let lines = "{\"file_name\":\"x.png\",\"prompt\":\"rain\"}\n{\"file_name\":\"y.png\",\"prompt\":\"a fox\",\"category\":\"animals\"}\n";
    std::fs::write(root.path().join("closed/metadata.jsonl"), lines).unwrap();
    image(root.path(), "ours/fox.png", 3);
    std::fs::write(root.path().join("ours/fox.txt"), "a fox\n").unwrap();
    let study = study(root.path(), &["closed", "ours"], None).unwrap();
    assert_eq!(pairs(&study), [("a fox".into(), [1, 0], [3, 2])]);
    assert_eq!(study.prompts[study.items[0].prompt as usize].category.as_deref(), Some("animals"));
}

#[test]
fn three_models_meet_in_every_pair() {
    let root = tempfile::tempdir().unwrap();
    for (name, shade) in [("a/0000-1.png", 1), ("b/0000-1.png", 2), ("c/0000-9.png", 3)] {
        image(root.path(), name, shade);
    }
    let study = study(root.path(), &["a", "b", "c"], Some(&["a fox"])).unwrap();
    let mut models: Vec<[u32; 2]> = study.items.iter().map(|item| item.models).collect();
    models.sort_unstable();
    assert_eq!(models, [[1, 0], [2, 0], [2, 1]]);
}

#[test]
fn what_cannot_be_matched_is_named() {
    let root = tempfile::tempdir().unwrap();
    image(root.path(), "a/0000-1.png", 1);
    image(root.path(), "b/0001-1.png", 1);
    std::fs::create_dir_all(root.path().join("empty")).unwrap();
    let wrong = |names: &[&str], prompts: Option<&[&str]>| study(root.path(), names, prompts).err().unwrap();
    assert_eq!(wrong(&["a"], None), "x has the images of 1 models; wanted two or more");
    assert!(wrong(&["a", "b"], None).contains("0000-1.png of a has no prompt; wanted --prompts"));
    assert!(wrong(&["a", "b"], Some(&["one"])).contains("0001-1.png of b has no prompt"));
    assert!(wrong(&["a", "b"], Some(&["one", "two"])).contains("of no prompt in common"));
    assert!(wrong(&["empty", "a"], Some(&["one"])).contains("there is no PNG, JPEG or WebP image in"));
}

#[test]
fn the_grid_of_sample_is_passed_over_and_what_is_no_image_is_named_at_once() {
    let root = tempfile::tempdir().unwrap();
    for name in ["base/0000-1.png", "base/image-grid.png", "new/0000-1.png", "new/contact-sheet.png"] {
        image(root.path(), name, 1);
        std::fs::write(root.path().join(name).with_extension("txt"), "a fox").unwrap();
    }
    for grid in ["base/image-grid.txt", "new/contact-sheet.txt"] {
        std::fs::remove_file(root.path().join(grid)).unwrap();
    }
    assert_eq!(pairs(&study(root.path(), &["base", "new"], None).unwrap()).len(), 1);
    std::fs::write(root.path().join("new/0000-1.png"), "GIF89a, as it was downloaded").unwrap();
    let error = study(root.path(), &["base", "new"], None).err().unwrap();
    assert!(error.ends_with("new/0000-1.png holds a GIF image; wanted PNG, JPEG or WebP"), "{error}");
    std::fs::rename(root.path().join("new/0000-1.png"), root.path().join("new/0000-1.gif")).unwrap();
    let error = study(root.path(), &["base", "new"], None).err().unwrap();
    assert!(error.contains("it has 1 .gif, which are not read"), "{error}");
}

#[test]
fn damaged_images_and_malformed_rows_are_left_out_by_name() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["a", "b"] {
        let mut rows = Vec::new();
        for number in 0..5u8 {
            image(root.path(), &format!("{folder}/{number}.png"), number);
            rows.extend(format!("{{\"file_name\": \"{number}.png\", \"prompt\": \"p{number}\"}}\n").bytes());
        }
        rows.extend(b"{\"file_name\": \"9.png\", \"prompt\": \"not there\"}\n{\"prompt\": \"caf\xe9\"}\n");
        std::fs::write(root.path().join(folder).join("metadata.jsonl"), rows).unwrap();
    }
    let whole = std::fs::read(root.path().join("a/1.png")).unwrap();
    std::fs::write(root.path().join("a/1.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(root.path().join("b/3.png"), b"<html>404</html>").unwrap();
    let study = study(root.path(), &["a", "b"], None).unwrap();
    let mut n_images = 0;
    let unreadable = study.unreadable(&mut |done, of| n_images = (done == of) as usize * of).unwrap();
    assert_eq!((study.items.len(), n_images, unreadable.len()), (4, 8, 1));
    let study = study.without(&unreadable).unwrap();
    let prompts: Vec<String> = pairs(&study).into_iter().map(|pair| pair.0).collect();
    assert_eq!(prompts, ["p0", "p2", "p4"]);
    let said = study.skipped.join("\n");
    for wanted in [
        "line 6: 9.png does not exist",
        "line 7 has a byte that is not UTF-8",
        "a/1.png does not decode",
        "b/3.png holds ",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let all: std::collections::BTreeMap<u32, String> =
        (0..10).map(|image| (image, "cut".to_owned())).collect();
    let error = study.without(&all).err().unwrap().to_string();
    assert!(error.contains("has no pair whose images can be read"), "{error}");
}
