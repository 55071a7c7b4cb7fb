//! What was asked for of a repository, and whether all of it is there.
//!
//! The Hub's own tools keep no such mark, and take no notice of ours: it lies beside their folders, in
//! `models--org--name/.tastemaker/<commit>.json`. A snapshot without one is taken for whole.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tastemaker_store::{StoreError, atomic, json};

use crate::names::file_path;
use crate::select::Selection;

/// One fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// In words.
    pub what: String,
    /// Whether files were named one by one, so that others of the same kind may be missing.
    pub is_part: bool,
    /// The files that were picked, until all of them are there.
    pub files: BTreeSet<String>,
}

/// What was fetched of one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    format: u32,
    /// Fetches that ended.
    pub whole: Vec<Asked>,
    /// The one that is under way, or was interrupted.
    pub begun: Option<Asked>,
}

const FORMAT: u32 = 1;

impl Asked {
    pub fn new(selection: &Selection, files: &[&str]) -> Self {
        let (what, is_part) = match selection {
            Selection::Pipeline { variant: None } => ("a pipeline".to_owned(), false),
            Selection::Pipeline { variant: Some(variant) } => (format!("a pipeline in {variant}"), false),
            Selection::Data { config: None, split: None } => ("all data".to_owned(), false),
            Selection::Data { config, split } => {
                let parts = [("config", config), ("split", split)];
                let parts =
                    parts.iter().filter_map(|(name, part)| Some(format!("{name} {}", part.as_ref()?)));
                (parts.collect::<Vec<_>>().join(", "), true)
            }
            Selection::Matching(patterns) => (format!("--include {}", patterns.join(" --include ")), true),
        };
        Self { what, is_part, files: files.iter().map(|&name| name.to_owned()).collect() }
    }

    /// How many of the files are missing below a snapshot's folder.
    pub fn n_missing(&self, folder: &Path) -> usize {
        let is_there = |name: &&String| file_path(name).is_ok_and(|path| folder.join(path).is_file());
        self.files.len() - self.files.iter().filter(is_there).count()
    }
}

impl Mark {
    /// The mark in this file; one without anything where there is none, or another version's.
    pub fn read(path: &Path) -> Self {
        let found: Result<Self, StoreError> = json::read(path);
        found.ok().filter(|mark| mark.format == FORMAT).unwrap_or_default()
    }

    /// Writes it.
    pub fn write(mut self, path: &Path) -> Result<(), StoreError> {
        self.format = FORMAT;
        path.parent().map_or(Ok(()), atomic::create_folder)?;
        json::write(path, &self)
    }

    /// The fetch is under way.
    pub fn begin(mut self, asked: Asked) -> Self {
        self.begun = Some(asked);
        self
    }

    /// The fetch has ended. What was interrupted before stays interrupted unless it was the same, or its files are there.
    pub fn end(mut self, asked: Asked, folder: &Path) -> Self {
        self.whole.retain(|other| other.what != asked.what);
        let is_done = |begun: &Asked| begun.what == asked.what || begun.n_missing(folder) == 0;
        self.begun = self.begun.filter(|begun| !is_done(begun));
        // Of a fetch that ended, nobody asks which files it was.
        self.whole.push(Asked { files: BTreeSet::new(), ..asked });
        self
    }

    /// The fetch that was interrupted, with how many of its files are missing.
    pub fn interrupted(&self, folder: &Path) -> Option<(&Asked, usize)> {
        let begun = self.begun.as_ref()?;
        let n_missing = begun.n_missing(folder);
        (n_missing > 0).then_some((begun, n_missing))
    }

    /// What was asked for, where that was only parts.
    pub fn parts(&self) -> Option<String> {
        let is_part = !self.whole.is_empty() && self.whole.iter().all(|asked| asked.is_part);
        is_part.then(|| self.whole.iter().map(|asked| asked.what.as_str()).collect::<Vec<_>>().join("; "))
    }
}
