//! Images that a table names by paths.

use std::sync::Arc;

use tastemaker_store::StoreError;
use tastemaker_store::tree::Tree;

use crate::set::{Files, ImageRef};

/// Finds the images that a list names.
#[derive(Debug)]
pub struct Images {
    files: Files,
    tree: Arc<dyn Tree>,
    folders: Vec<String>,
}

/// Number of the container of files among those of a table's set.
const FILES: u8 = 0;

impl Images {
    /// For no list yet.
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self { files: Files::new(tree.clone()), tree, folders: Vec::new() }
    }

    /// Names from now on are those of the list at `path`: relative to its folder, or to the folder beside it of the
    /// list's own name without extension.
    ///
    /// Source of the latter: HPDv2, whose `train.json` names images of `train/`.
    pub fn of_list(&mut self, path: &str) {
        let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let beside = format!("{folder}{stem}/");
        self.folders = vec![folder, beside];
    }

    /// Names from now on are those of what may name no files: none is found.
    pub fn of_no_list(&mut self) {
        self.folders.clear();
    }

    /// The image of this name, or where it was looked for.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be known.
    pub fn find(&mut self, name: &str) -> Result<Result<ImageRef, String>, StoreError> {
        for folder in &self.folders {
            if let Some(item) = self.files.find(&format!("{folder}{name}"))? {
                return Ok(Ok(ImageRef { container: FILES, item }));
            }
        }
        let first = self.folders.first().map_or("", String::as_str);
        Ok(Err(self.tree.place(&format!("{first}{name}")).display().to_string()))
    }

    /// What holds the images found; the first container of the set.
    pub fn into_files(self) -> Files {
        self.files
    }
}
