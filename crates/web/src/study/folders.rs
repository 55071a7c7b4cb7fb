//! Folders of images from anywhere, matched by prompt.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::ImageFormat;
use tastemaker_data::formats::{ListedImage, read_image_list};
use tastemaker_data::set::{prompt_of, read_encoded};
use tastemaker_store::json;
use tastemaker_store::tree::{FileKind, LocalTree, READ_KINDS, Tree, is_hidden, kind_of, unread};

use super::readable::skips;
use super::{ImageSource, Item, Study, StudyPrompt};
use crate::WebError;

/// What `tastemaker sample` puts beside images, and what earlier versions called it.
const GRIDS: [&str; 2] = ["image-grid.png", "contact-sheet.png"];

/// Bytes of a file that say whether it is an image.
const HEAD: u64 = 64;

/// A folder of images, and what its model is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderOfImages {
    /// The name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
}

struct Files(Vec<PathBuf>);

impl ImageSource for Files {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, image: u32) -> Result<Vec<u8>, WebError> {
        Ok(read_encoded(&self.0[image as usize])?)
    }

    fn name(&self, image: u32) -> String {
        self.0[image as usize].display().to_string()
    }
}

/// The images of pairs that are files, A before B of each; `None` if one of them is none.
pub fn of_places(places: &[[String; 2]]) -> Option<Arc<dyn ImageSource>> {
    let paths: Vec<PathBuf> = places.iter().flatten().map(PathBuf::from).collect();
    paths.iter().all(|path| path.is_file()).then(|| Arc::new(Files(paths)) as Arc<dyn ImageSource>)
}

/// An image of a folder.
struct Found {
    prompt: StudyPrompt,
    seed: u64,
    path: PathBuf,
}

/// Every two folders against each other, on the prompts that both have images of.
///
/// The prompt of an image is, in this order: what `metadata.jsonl` of its folder says; of `prompts`, the one whose number its name
/// begins with (`0007-3.png`); what a text of its name says (`cat.txt`); what a PNG says of itself. Images of one prompt are matched
/// by seed where both folders have the same seeds, else in order.
///
/// # Errors
/// [`WebError::Study`] for fewer than two folders, an image without a prompt, and folders without a prompt in common;
/// [`WebError::Store`] for what cannot be read.
pub fn of_folders(
    name: &str,
    folders: &[FolderOfImages],
    prompts: Option<&[StudyPrompt]>,
) -> Result<Study, WebError> {
    if folders.len() < 2 {
        let what = format!("{name} has the images of {} models; wanted two or more", folders.len());
        return Err(WebError::Study(what));
    }
    let mut texts: Vec<StudyPrompt> = Vec::new();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let (mut paths, mut by_folder, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for folder in folders {
        let mut of_folder: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        for Found { prompt, seed, path } in images(folder, prompts, &mut skipped)? {
            if let Some(problem) = no_image(&path) {
                skipped.push(problem);
                continue;
            }
            let number = *numbers.entry(prompt.text.clone()).or_insert_with(|| {
                texts.push(prompt);
                (texts.len() - 1) as u32
            });
            of_folder.entry(number).or_default().push((seed, paths.len() as u32));
            paths.push(std::path::absolute(&path).unwrap_or(path));
        }
        of_folder.values_mut().for_each(|images| images.sort_unstable());
        by_folder.push(of_folder);
    }
    let mut items = Vec::new();
    for b in 0..folders.len() {
        for a in b + 1..folders.len() {
            for (prompt, of_a) in &by_folder[a] {
                let Some(of_b) = by_folder[b].get(prompt) else { continue };
                items.extend(matched(of_a, of_b).map(|(seed, images)| Item {
                    prompt: *prompt,
                    models: [a as u32, b as u32],
                    images,
                    seed,
                    known: None,
                }));
            }
        }
    }
    if items.is_empty() {
        let names: Vec<&str> = folders.iter().map(|folder| folder.name.as_str()).collect();
        let why = skipped.first().map_or_else(String::new, |first| format!("; {first}"));
        let what = format!(
            "{} have images of no prompt in common; wanted images of the same prompts{why}",
            names.join(", ")
        );
        return Err(WebError::Study(what));
    }
    items.sort_by_key(|item| (item.prompt, item.seed, item.models));
    let models = folders.iter().map(|folder| folder.name.clone()).collect();
    let images = Arc::new(Files(paths));
    Ok(Study { name: name.to_owned(), prompts: texts, models, items, images, skipped })
}

/// Images of one prompt that belong together: by seed, or in order where no seed is in both.
fn matched(a: &[(u64, u32)], b: &[(u64, u32)]) -> impl Iterator<Item = (u64, [u32; 2])> {
    let by_seed: HashMap<u64, u32> = b.iter().copied().collect();
    let mut found: Vec<(u64, [u32; 2])> =
        a.iter().filter_map(|&(seed, image)| Some((seed, [image, *by_seed.get(&seed)?]))).collect();
    if found.is_empty() {
        found = a.iter().zip(b).zip(0..).map(|((a, b), seed)| (seed, [a.1, b.1])).collect();
    }
    found.into_iter()
}

fn images(
    folder: &FolderOfImages,
    prompts: Option<&[StudyPrompt]>,
    skipped: &mut Vec<String>,
) -> Result<Vec<Found>, WebError> {
    let FolderOfImages { name, folder } = folder;
    let metadata = folder.join("metadata.jsonl");
    if metadata.is_file() {
        return of_metadata(folder, &metadata, skipped);
    }
    let is_image =
        |name: &str| FileKind::of_path(name) == FileKind::Image && !is_hidden(name) && !GRIDS.contains(&name);
    let entries = LocalTree::new(folder).entries()?;
    let mut found = Vec::new();
    for (order, entry) in entries.iter().filter(|entry| is_image(&entry.path)).enumerate() {
        let path = folder.join(&entry.path);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let (number, seed) =
            stem.split_once('-').map_or((stem, None), |(number, seed)| (number, seed.parse().ok()));
        let listed = || prompts?.get(number.parse::<usize>().ok()?).cloned();
        let prompt = match (prompts.is_some(), listed()) {
            (_, Some(prompt)) if prompt.text.is_empty() => {
                skipped.push(format!("{}: prompt {number} of the list is skipped", path.display()));
                continue;
            }
            (_, Some(prompt)) => Some(prompt),
            // A list that does not have this number is of other images.
            (true, None) => None,
            (false, None) => match beside(&path) {
                Ok(text) => text.map(|text| StudyPrompt { text, category: None }),
                Err(error) => {
                    skipped.push(skips(error)?);
                    continue;
                }
            },
        };
        let prompt = prompt.ok_or_else(|| {
            let what = format!("the image {} of {name} has no prompt", path.display());
            WebError::Study(format!(
                "{what}; wanted --prompts with the list its number counts in, a metadata.jsonl, or a {stem}.txt"
            ))
        })?;
        found.push(Found { prompt, seed: seed.unwrap_or(order as u64), path });
    }
    if found.is_empty() {
        let others =
            unread(&entries).map_or(String::new(), |others| format!("; it has {others}, which are not read"));
        let what = format!("there is no {READ_KINDS} image in {}{others}", folder.display());
        return Err(WebError::Study(what));
    }
    Ok(found)
}

fn of_metadata(folder: &Path, list: &Path, skipped: &mut Vec<String>) -> Result<Vec<Found>, WebError> {
    let read = read_image_list(list)?;
    let n_before = skipped.len();
    let mut found = Vec::new();
    skipped.extend(read.skipped.into_iter().map(|line| format!("{}: {line}", list.display())));
    for ListedImage { line, file, prompt: text, category, seed } in read.images {
        let path = folder.join(&file);
        match path.is_file() {
            true => {
                found.push(Found { prompt: StudyPrompt { text, category }, seed: seed.unwrap_or(line), path })
            }
            false => skipped.push(format!("{}: line {line}: {file} does not exist", list.display())),
        }
    }
    match (found.is_empty(), skipped.get(n_before)) {
        (true, Some(first)) => Err(WebError::Study(first.clone())),
        (true, None) => Err(WebError::Study(format!("{} lists no image", list.display()))),
        (false, _) => Ok(found),
    }
}

/// What a file is that is no image, or cannot be read.
fn no_image(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    match (read, image::guess_format(&head)) {
        (Err(error), _) => Some(format!("{} cannot be read: {error}", path.display())),
        (Ok(_), Ok(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => None,
        _ => {
            let found = kind_of(&head).unwrap_or("something else");
            Some(format!("{} holds {found}; wanted {READ_KINDS}", path.display()))
        }
    }
}

/// The prompt in a text beside an image, or in the image.
fn beside(path: &Path) -> Result<Option<String>, WebError> {
    for ending in ["txt", "caption"] {
        let text = path.with_extension(ending);
        if text.is_file() {
            return Ok(Some(json::read_text(&text)?.trim().to_owned()).filter(|text| !text.is_empty()));
        }
    }
    let file = File::open(path).map_err(|error| tastemaker_store::StoreError::io("read", path, error))?;
    Ok(prompt_of(BufReader::new(file)).map(|prompt| prompt.text))
}
