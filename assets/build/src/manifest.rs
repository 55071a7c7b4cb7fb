//! `manifest.json`: what the built files are, where they come from and how to remake them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::hash::sha256_hex;
use crate::sources::SOURCES;

/// The command that remakes the built files, run from the repository root.
pub const COMMAND: &str = "cargo run -p tastemaker-assets -- --cache target/assets-cache";

/// The whole manifest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// Command that remakes the files.
    pub command: String,
    /// Packages the files are made from.
    pub sources: Vec<SourceEntry>,
    /// The files.
    pub files: Vec<FileEntry>,
}

/// One source package.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// npm package name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// SHA-256 of its tarball.
    pub sha256: String,
    /// SPDX expression.
    pub license: String,
    /// Whom to credit.
    pub attribution: String,
    /// Where it is made.
    pub upstream: String,
}

/// One file under `assets/demo`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to `assets/demo`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content.
    pub sha256: String,
    /// npm packages it is made from; empty for texts.
    pub sources: Vec<String>,
    /// SPDX expression.
    pub license: String,
}

/// Measures the file at `path` under `root`.
///
/// # Errors
/// When it cannot be read.
pub fn measure(root: &Path, path: &str, sources: &[&str], license: &str) -> Result<FileEntry> {
    let content = fs::read(root.join(path)).with_context(|| format!("reading {path}"))?;
    Ok(FileEntry {
        path: path.to_owned(),
        bytes: content.len() as u64,
        sha256: sha256_hex(&content),
        sources: sources.iter().map(|&name| name.to_owned()).collect(),
        license: license.to_owned(),
    })
}

/// The manifest of `files`.
pub fn of(files: Vec<FileEntry>) -> Manifest {
    let sources = SOURCES
        .iter()
        .map(|source| SourceEntry {
            package: source.package.to_owned(),
            version: source.version.to_owned(),
            sha256: source.sha256.to_owned(),
            license: source.license.to_owned(),
            attribution: source.attribution.to_owned(),
            upstream: source.upstream.to_owned(),
        })
        .collect();
    Manifest { version: 1, command: COMMAND.to_owned(), sources, files }
}
