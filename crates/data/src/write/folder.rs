//! A folder that is there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tastemaker_store::{StoreError, atomic};

/// A folder being filled beside the place it will have. One that is never finished is removed.
#[derive(Debug)]
pub struct Target {
    staged: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Target {
    /// Begins a folder that takes the place of one that may be there.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a path that has no name, [`StoreError::Io`].
    pub fn replacing(path: &Path) -> Result<Self, StoreError> {
        let staged = beside(path, "partial")?;
        // What is there is left from a run that was killed.
        remove(&staged)?;
        atomic::create_folder(&staged)?;
        Ok(Self { staged, path: path.to_path_buf(), done: false })
    }

    /// Where a file is while the folder is being filled. Makes the folders above it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn file(&self, path: &str) -> Result<PathBuf, StoreError> {
        let path = self.staged.join(path);
        if let Some(folder) = path.parent() {
            atomic::create_folder(folder)?;
        }
        Ok(path)
    }

    /// Puts the folder into its place.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(mut self) -> Result<(), StoreError> {
        let old = beside(&self.path, "old")?;
        remove(&old)?;
        if self.path.exists() {
            atomic::rename(&self.path, &old)?;
        }
        atomic::rename(&self.staged, &self.path)?;
        self.done = true;
        remove(&old)
    }
}

/// A hidden sibling.
fn beside(path: &Path, ending: &str) -> Result<PathBuf, StoreError> {
    let name = path.file_name().ok_or_else(|| unusable(path, "a path that ends in a name"))?;
    Ok(path.with_file_name(format!(".{}.{ending}", name.display())))
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).map_err(|e| StoreError::io("remove", folder, e)),
        false => Ok(()),
    }
}

fn unusable(path: &Path, wanted: &'static str) -> StoreError {
    StoreError::Name { what: "output folder", found: path.display().to_string(), wanted }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.done {
            // The caller gets the error that came before.
            let _ = fs::remove_dir_all(&self.staged);
        }
    }
}

/// Creates a file that nothing reads before the folder is whole.
///
/// # Errors
/// [`StoreError::Io`].
pub fn create(path: &Path) -> Result<File, StoreError> {
    File::create(path).map_err(|e| StoreError::io("write", path, e))
}
