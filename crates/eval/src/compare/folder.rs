//! Images that are there already: which one is which sample.

use std::collections::HashMap;

use super::model::Sample;
use tastemaker_data::formats::ListedImage;
use tastemaker_generate::prompts::Prompt;
use tastemaker_store::tree::{FileKind, IMAGE_EXTENSIONS, is_hidden};

/// Which images of a folder are the samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// For every sample the file, relative to the folder; `None` where there is none.
    pub files: Vec<Option<String>>,
    /// How the files were told apart.
    pub by: &'static str,
}

/// Finds the image of every sample, whose `prompt` counts through `prompts`, the whole set.
///
/// `names` are all files below the folder, relative to it, with `/`. In this order:
/// - `metadata`, the rows of a `metadata.jsonl`, says which file shows which prompt (and seed, if it says so);
/// - names are `<number>-<seed>.png`, as `tastemaker sample` writes them;
/// - names are `<style>/<number>.jpg`, the folders of HPSv2's benchmark, or `<number>.png`, an image for each prompt. Where
///   several images of a prompt are wanted, such a name is the first.
///
/// # Errors
/// A folder without any image; in words.
pub fn match_images(
    names: &[String],
    metadata: Option<&[ListedImage]>,
    prompts: &[Prompt],
    samples: &[Sample],
) -> Result<Matched, String> {
    if let Some(metadata) = metadata {
        return Ok(by_metadata(metadata, prompts, samples));
    }
    let images: Vec<(&str, &String)> =
        names.iter().filter_map(|name| Some((image_stem(name)?, name))).collect();
    if images.is_empty() {
        return Err(format!(
            "there is no image in it; wanted files that end in {}",
            IMAGE_EXTENSIONS.join(", ")
        ));
    }
    let by_seed: HashMap<(usize, u64), &String> = images
        .iter()
        .filter_map(|(stem, name)| {
            let (number, seed) = stem.split_once('-')?;
            Some(((digits(number)?, seed.parse().ok()?), *name))
        })
        .collect();
    if !by_seed.is_empty() {
        let file = |sample: &Sample| by_seed.get(&(sample.prompt, sample.seed)).map(|&name| name.clone());
        return Ok(Matched { files: samples.iter().map(file).collect(), by: "<number>-<seed>" });
    }
    let by_id: HashMap<String, &String> =
        images.iter().filter_map(|(stem, name)| Some((numbered(stem)?, *name))).collect();
    let mut taken = std::collections::HashSet::new();
    let file = |sample: &Sample| {
        let file = by_id.get(&numbered(&prompts[sample.prompt].id)?)?;
        taken.insert(sample.prompt).then(|| (*file).clone())
    };
    Ok(Matched { files: samples.iter().map(file).collect(), by: "<number>" })
}

fn by_metadata(metadata: &[ListedImage], prompts: &[Prompt], samples: &[Sample]) -> Matched {
    let mut seeded: HashMap<(String, u64), String> = HashMap::new();
    let mut in_order: HashMap<String, std::collections::VecDeque<String>> = HashMap::new();
    for ListedImage { file, prompt, seed, .. } in metadata.iter().cloned() {
        match seed {
            Some(seed) => drop(seeded.insert((prompt, seed), file)),
            None => in_order.entry(prompt).or_default().push_back(file),
        }
    }
    let file = |sample: &Sample| {
        let text = &prompts[sample.prompt].text;
        let seeded = seeded.get(&(text.clone(), sample.seed)).cloned();
        seeded.or_else(|| in_order.get_mut(text)?.pop_front())
    };
    Matched { files: samples.iter().map(file).collect(), by: "metadata.jsonl" }
}

/// The name of an image without its extension; `None` for another file, or a hidden one.
fn image_stem(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    (FileKind::of(extension) == FileKind::Image && !is_hidden(name)).then_some(stem)
}

/// `anime/00017` and `anime/17` as one; `None` for a name that is no number.
fn numbered(name: &str) -> Option<String> {
    let (folder, number) =
        name.rsplit_once('/').map_or((None, name), |(folder, number)| (Some(folder), number));
    let number = digits(number)?.to_string();
    Some(folder.map_or(number.clone(), |folder| format!("{folder}/{number}")))
}

fn digits(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tastemaker_generate::prompts::PromptSet;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn three() -> Vec<Prompt> {
        PromptSet::new("three", ["a fox", "rain", "a fox"].map(|text| (text.to_owned(), None))).prompts
    }

    fn wanted(pairs: &[(usize, u64)]) -> Vec<Sample> {
        pairs.iter().map(|&(prompt, seed)| Sample { prompt, seed }).collect()
    }

    fn found(matched: Result<Matched, String>) -> Vec<String> {
        matched.unwrap().files.into_iter().map(|file| file.unwrap_or_else(|| "-".into())).collect()
    }

    #[test]
    fn names_with_number_and_seed_are_those_of_sample() {
        let files = names(&["0000-41.png", "0002-41.png", "0000-42.png", "notes.txt", "thumbs/0001-41.png"]);
        let samples = wanted(&[(0, 41), (0, 42), (1, 41), (2, 41)]);
        let matched = match_images(&files, None, &three(), &samples);
        assert_eq!(found(matched), ["0000-41.png", "0000-42.png", "-", "0002-41.png"]);
    }

    #[test]
    fn plain_numbers_are_the_first_image_of_a_prompt() {
        let files = names(&["00000.jpg", "00001.jpg", "00002.jpg"]);
        let matched = match_images(&files, None, &three(), &wanted(&[(1, 7), (1, 8), (2, 7)]));
        assert_eq!(found(matched), ["00001.jpg", "-", "00002.jpg"]);
    }

    #[test]
    fn folders_by_style_are_those_of_hpsv2() {
        let ids = ["anime/00000", "anime/00001", "photo/00000"];
        let prompt = |id: &&str| Prompt { id: (*id).to_owned(), text: String::new(), category: None };
        let prompts: Vec<Prompt> = ids.iter().map(prompt).collect();
        let files = names(&["photo/00000.jpg", "anime/00001.jpg", "anime/00000.jpg"]);
        let matched = match_images(&files, None, &prompts, &wanted(&[(0, 0), (1, 0), (2, 0)]));
        assert_eq!(found(matched), ["anime/00000.jpg", "anime/00001.jpg", "photo/00000.jpg"]);
    }

    #[test]
    fn metadata_matches_by_prompt_and_repeated_prompts_in_order() {
        let rows = [("x.png", "a fox", None), ("r.png", "rain", Some(5)), ("y.png", "a fox", None)];
        let listed = |(file, prompt, seed): (&str, &str, Option<u64>)| ListedImage {
            line: 1,
            file: file.into(),
            prompt: prompt.into(),
            category: None,
            seed,
        };
        let metadata = rows.map(listed);
        let samples = wanted(&[(0, 5), (1, 5), (1, 6), (2, 5)]);
        let matched = match_images(&[], Some(&metadata), &three(), &samples);
        assert_eq!(found(matched), ["x.png", "r.png", "-", "y.png"]);
    }

    #[test]
    fn a_folder_without_images_is_refused() {
        let error =
            match_images(&names(&["a.txt", ".0.png"]), None, &three(), &wanted(&[(0, 0)])).unwrap_err();
        assert_eq!(error, "there is no image in it; wanted files that end in png, jpg, jpeg, webp");
    }
}
