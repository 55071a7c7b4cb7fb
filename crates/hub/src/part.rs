//! Which files of a dataset are rows, and which of them belong to a configuration or a split.
//!
//! Source: the documentation of the Hub's datasets, "File names and splits". A card that says otherwise in its header is not read.

use tastemaker_store::tree::{FileKind, is_hidden};

/// Endings of files that hold many rows.
const TABLES: [&str; 5] = [".parquet", ".jsonl", ".json", ".csv", ".tar"];

/// What says what a dataset is.
pub(crate) const CARD: &str = "README.md";

/// Parts of a dataset that are shown where another one was asked for.
const SHOWN: usize = 10;

/// Whether a file holds data: never a script, a pickle or something hidden.
pub(crate) fn is_data(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_read = matches!(FileKind::of_path(&name), FileKind::Image | FileKind::Caption(_));
    (is_read || TABLES.iter().any(|table| name.ends_with(table))) && !is_hidden(&name)
}

/// The files of data that belong to a configuration and a split, in the order of `names`; `None` is all of them.
///
/// A configuration is a folder. A split is the name of a folder, of a file without its ending or its numbers
/// (`validation-00000-of-00004.parquet`), or, where there is neither, a word in a file's name.
///
/// # Errors
/// What there is instead, if nothing belongs to them.
pub fn part_of<'a>(
    names: &[&'a str],
    config: Option<&str>,
    split: Option<&str>,
) -> Result<Vec<&'a str>, String> {
    let mut chosen: Vec<&str> = names.iter().copied().filter(|name| is_data(name)).collect();
    if let Some(config) = config {
        let inside: Vec<&str> =
            chosen.iter().copied().filter(|name| folders(name).any(|folder| folder == config)).collect();
        if inside.is_empty() {
            let known = listed(chosen.iter().filter_map(|name| folders(name).next()));
            return Err(format!("files in a folder {config:?}, where the folders are: {known}"));
        }
        chosen = inside;
    }
    let Some(split) = split else { return Ok(chosen) };
    let kinds: [fn(&str, &str) -> bool; 3] = [
        |name, split| without_numbers(stem(name)) == Some(split),
        |name, split| stem(name) == split || folders(name).any(|folder| folder == split),
        |name, split| has_word(stem(name), split),
    ];
    let belonging = |kind: &fn(&str, &str) -> bool| -> Vec<&'a str> {
        chosen.iter().copied().filter(|name| kind(name, split)).collect()
    };
    kinds.iter().map(belonging).find(|files| !files.is_empty()).ok_or_else(|| {
        let known = listed(chosen.iter().map(|name| likely_split(name)));
        format!("files of the split {split:?}, where the names are: {known}")
    })
}

/// What a file seems to be of: images and lists of images of their folder, others of what their name says.
fn likely_split(name: &str) -> &str {
    let of_folder = stem(name) == "metadata" || !TABLES.iter().any(|ending| name.ends_with(ending));
    let folder = folders(name).last().filter(|_| of_folder);
    without_numbers(stem(name)).or(folder).unwrap_or(stem(name))
}

fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.rsplit_once('/').map_or("", |(folder, _)| folder).split('/').filter(|folder| !folder.is_empty())
}

/// A file's name without folder and ending.
fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// `train` of `train-00000-of-00004`.
fn without_numbers(stem: &str) -> Option<&str> {
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, total) = stem.split_once("-of-")?;
    let (split, number) = rest.rsplit_once('-')?;
    // Exports of the Hub put a checksum behind.
    (digits(number) && digits(total.split('-').next().unwrap_or_default())).then_some(split)
}

/// Whether a word stands in a name by itself, between its ends, punctuation and digits.
fn has_word(stem: &str, word: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| "-._ ".contains(c) || c.is_ascii_digit());
    !word.is_empty()
        && stem.match_indices(word).any(|(at, _)| {
            ends(stem[..at].chars().next_back()) && ends(stem[at + word.len()..].chars().next())
        })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names.truncate(SHOWN);
    if names.is_empty() { "none".into() } else { format!("{}{more}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICKAPIC: [&str; 8] = [
        ".gitattributes",
        "README.md",
        "data/test-00000-of-00001-7c5c2ad3.parquet",
        "data/test_unique-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/validation_unique-00000-of-00001.parquet",
        "pickapic.py",
    ];

    fn part<'a>(
        names: &[&'a str],
        config: &'static str,
        split: &'static str,
    ) -> Result<Vec<&'a str>, String> {
        let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        part_of(names, given(config), given(split))
    }

    #[test]
    fn rows_images_and_captions_are_data_and_nothing_that_runs_is() {
        for name in ["a.parquet", "b/c.JPG", "x.tar", "captions.txt", "metadata.jsonl"] {
            assert!(is_data(name), "{name}");
        }
        for name in
            ["load.py", "x.pkl", "x.pt", ".hidden.txt", ".cache/a.png", "a.zip", "parquet", "x.parquet.py"]
        {
            assert!(!is_data(name), "{name}");
        }
    }

    #[test]
    fn a_split_is_its_numbered_files_and_not_those_of_a_longer_name() {
        assert_eq!(part(&PICKAPIC, "", "train").unwrap(), PICKAPIC[4..6]);
        assert_eq!(part(&PICKAPIC, "", "test").unwrap(), PICKAPIC[2..3]);
        assert_eq!(part(&PICKAPIC, "", "").unwrap(), PICKAPIC[2..7]);
        let wanted =
            "files of the split \"dev\", where the names are: test, test_unique, train, validation_unique";
        assert_eq!(part(&PICKAPIC, "", "dev").unwrap_err(), wanted);
    }

    #[test]
    fn a_split_is_a_folder_a_file_or_a_word() {
        let names = ["train/metadata.jsonl", "train/1.png", "test/1.png", "train.csv"];
        assert_eq!(part(&names, "", "train").unwrap(), [names[0], names[1], names[3]]);
        let wanted = "files of the split \"dev\", where the names are: test, train";
        assert_eq!(part(&names, "", "dev").unwrap_err(), wanted);
        let names = ["pairs_train_1.jsonl", "pairs-trained.jsonl", "constrain.jsonl", "2024 train.csv"];
        assert_eq!(part(&names, "", "train").unwrap(), [names[0], names[3]]);
    }

    #[test]
    fn a_configuration_is_a_folder() {
        let names = [
            "en/train-00000-of-00001.parquet",
            "en/test-00000-of-00001.parquet",
            "de/train-00000-of-00001.parquet",
        ];
        assert_eq!(part(&names, "en", "").unwrap(), names[..2]);
        assert_eq!(part(&names, "de", "train").unwrap(), names[2..]);
        assert_eq!(
            part(&names, "fr", "").unwrap_err(),
            "files in a folder \"fr\", where the folders are: de, en"
        );
    }
}
