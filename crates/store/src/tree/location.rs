//! What a user means by a path: a place, or some files of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::braces::{common_folder, expand, is_pattern};
use super::{Entry, LocalTree, Tree};
use crate::{StoreError, regular};

/// A place and, where single files of it are meant, which.
#[derive(Debug, Clone)]
pub struct Location {
    tree: Arc<dyn Tree>,
    files: Vec<String>,
    typed: PathBuf,
}

impl Location {
    /// A whole tree, or these files of it; `typed` is what the user calls it.
    pub fn new(tree: Arc<dyn Tree>, files: Vec<String>, typed: impl Into<PathBuf>) -> Self {
        Self { tree, files, typed: typed.into() }
    }

    /// A folder or a file on this machine; or several files in one text, see [`expand`]; or all files of a folder that a name
    /// with one `*` fits: `data/train-*`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is nothing, [`StoreError::Name`] for a file whose name is not UTF-8.
    pub fn local(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !path.exists() {
            if let Some(text) = path.to_str().filter(|text| is_pattern(text)) {
                return Self::files(expand(text)?.into_iter().map(PathBuf::from).collect(), path);
            }
            if let Some(files) = fitting(path)? {
                return Ok(files);
            }
            return Err(StoreError::Missing { path: path.to_path_buf(), wanted: "a set of pairs".into() });
        }
        if let Some(found) = regular::odd(path) {
            return Err(StoreError::malformed(path, found, "a regular file or a folder"));
        }
        if path.is_dir() {
            return Ok(Self::new(Arc::new(LocalTree::new(path)), Vec::new(), path));
        }
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| not_utf8(path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self::new(Arc::new(LocalTree::new(folder)), vec![name.to_owned()], path))
    }

    /// These files on this machine, below the longest folder that they share.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a file whose name is not UTF-8.
    pub fn files(paths: Vec<PathBuf>, typed: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let names: Vec<String> = paths
            .into_iter()
            .map(|path| path.into_os_string().into_string().map_err(|path| not_utf8(path.as_ref())))
            .collect::<Result<_, _>>()?;
        let folder = common_folder(&names);
        let below = names.iter().map(|name| name[folder.len()..].to_owned()).collect();
        Ok(Self::new(Arc::new(LocalTree::new(folder)), below, typed))
    }

    /// Where the files are.
    pub fn tree(&self) -> &Arc<dyn Tree> {
        &self.tree
    }

    /// What the user called it.
    pub fn typed(&self) -> &Path {
        &self.typed
    }

    /// Whether single files are meant, not all of a folder.
    pub fn names_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The files that are meant, sorted by path.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be listed, or one is missing.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        if self.files.is_empty() {
            return self.tree.entries();
        }
        let entry = |path: &String| {
            let bytes = self.tree.size(path)?.ok_or_else(|| StoreError::Missing {
                path: self.tree.place(path),
                wanted: "a file".into(),
            })?;
            Ok(Entry { path: path.clone(), bytes })
        };
        self.files.iter().map(entry).collect()
    }
}

/// The files that a path with a `*` in its last part means, `None` if there are none.
fn fitting(path: &Path) -> Result<Option<Location>, StoreError> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('*'));
    let (Some((start, end)), Some(folder)) = (name, path.parent()) else { return Ok(None) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.is_dir() {
        return Ok(None);
    }
    let tree = LocalTree::new(folder);
    let fits =
        |name: &str| !name.contains('/') && name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end));
    let files: Vec<String> =
        tree.entries()?.into_iter().map(|entry| entry.path).filter(|name| fits(name)).collect();
    Ok((!files.is_empty()).then(|| Location::new(Arc::new(tree), files, path)))
}

fn not_utf8(path: &Path) -> StoreError {
    StoreError::Name { what: "file name", found: path.display().to_string(), wanted: "a name in UTF-8" }
}
