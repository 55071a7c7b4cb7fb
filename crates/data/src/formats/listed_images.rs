//! Lists of single images and the prompts they show, as lie beside generated images.

use std::path::Path;

use serde_json::Value;
use tastemaker_store::StoreError;
use tastemaker_store::tree::LocalFile;

use super::lists::{Item, Items, parse};

/// Names of the field with the file, the first that is there being taken.
const FILE: [&str; 5] = ["file_name", "image", "path", "gen_image_path", "file"];

/// Names of the field with the prompt.
const PROMPT: [&str; 3] = ["prompt", "caption", "text"];

/// An image of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Its line, counted from 1.
    pub line: u64,
    /// Its file, relative to the folder of the list.
    pub file: String,
    /// Its prompt.
    pub prompt: String,
    /// What the prompt is about, where the list says so.
    pub category: Option<String>,
    /// Its seed, where the list says so.
    pub seed: Option<u64>,
}

/// A list of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageList {
    /// The images, in order.
    pub images: Vec<ListedImage>,
    /// Lines that do not say what they must, in words.
    pub skipped: Vec<String>,
}

/// Reads the `metadata.jsonl` of a folder of images: an object a line, with a file and a prompt.
///
/// # Errors
/// [`StoreError`] if the file cannot be read.
pub fn read_image_list(path: impl AsRef<Path>) -> Result<ImageList, StoreError> {
    let file = LocalFile::open(path.as_ref())?;
    let mut items = Items::new(&file);
    let mut list = ImageList::default();
    while let Some(item) = items.line()? {
        match listed(item) {
            Ok(image) => list.images.push(image),
            Err(problem) => list.skipped.push(problem),
        }
    }
    Ok(list)
}

fn listed(item: Item<'_>) -> Result<ListedImage, String> {
    let Item::Text(text, Some(line)) = item else { return Err("a line is longer than is read".into()) };
    let row = parse(text).map_err(|problem| format!("line {line} {problem}"))?;
    let text = |names: &[&str]| names.iter().find_map(|name| row.get(*name)?.as_str().map(str::to_owned));
    let wanted = |names: &[&str]| {
        text(names).ok_or_else(|| format!("line {line} has no text called {}", names.join(", ")))
    };
    let seed = row.get("seed").and_then(Value::as_u64);
    Ok(ListedImage {
        line,
        file: wanted(&FILE)?,
        prompt: wanted(&PROMPT)?,
        category: text(&["category"]),
        seed,
    })
}
