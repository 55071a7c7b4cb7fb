//! The files under version control, as the checks see them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::child;

/// The tracked and the not yet tracked files of a checkout; ignored ones are absent.
#[derive(Debug, Default)]
pub struct Tree {
    /// Text files with their contents.
    pub texts: Vec<Text>,
    /// The paths of all files, texts or not, and of the folders they lie in.
    pub paths: BTreeSet<String>,
}

/// One text file.
#[derive(Debug)]
pub struct Text {
    /// Path from the root, with `/`.
    pub path: String,
    /// The whole contents.
    pub text: String,
}

/// Something that breaks an invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `path` or `path:line`.
    pub place: String,
    /// What was found and what to do instead.
    pub message: String,
}

impl Finding {
    /// A finding on line `line`, counted from 0, of the file at `path`.
    pub fn on_line(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { place: format!("{path}:{}", line + 1), message: message.into() }
    }

    /// A finding about the file or folder at `path`.
    pub fn at(path: &str, message: impl Into<String>) -> Self {
        Self { place: path.to_owned(), message: message.into() }
    }
}

impl Tree {
    /// Reads what git lists below `root`.
    ///
    /// # Errors
    /// `root` is not a git checkout.
    pub fn read(root: &Path) -> Result<Self> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let names = child::output(Command::new("git").current_dir(root).args(list))?;
        let mut tree = Self::default();
        // Files deleted and not yet committed are listed and cannot be read.
        for name in names.split('\0').filter(|name| root.join(name).is_file()) {
            tree.add(name, fs::read(root.join(name))?);
        }
        Ok(tree)
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>) {
        for (slash, _) in path.match_indices('/') {
            self.paths.insert(path[..slash].to_owned());
        }
        self.paths.insert(path.to_owned());
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            self.texts.push(Text { path: path.to_owned(), text });
        }
    }

    /// A made-up tree for tests.
    #[cfg(test)]
    pub fn made_of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add(path, text.as_bytes().to_vec());
        }
        tree
    }
}

impl Text {
    /// The file's ending without the dot, empty when it has none.
    pub fn ending(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, ending)| ending)
    }
}
