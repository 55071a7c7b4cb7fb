//! The command `cargo xtask tidy`.

use std::path::Path;

use anyhow::{Result, bail};

use super::tree::{Finding, Tree};
use super::{edges, links, metadata, style, words};

/// Prints every finding about the checkout at `root`.
///
/// # Errors
/// There are findings, or the checkout cannot be read.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let members = metadata::members(root)?;
    report(
        [
            edges::findings(&tree, &members),
            style::findings(&tree),
            links::findings(&tree),
            words::findings(&tree),
        ]
        .concat(),
    )?;
    println!("tidy: {} files and {} crates keep the invariants", tree.paths.len(), members.len());
    Ok(())
}

/// Prints the words that docs/vocabulary.md replaces.
///
/// # Errors
/// As [`run`].
pub fn run_words(root: &Path) -> Result<()> {
    report(words::findings(&Tree::read(root)?))
}

fn report(mut found: Vec<Finding>) -> Result<()> {
    found.sort();
    found.dedup();
    for finding in &found {
        println!("{}: {}", finding.place, finding.message);
    }
    if !found.is_empty() {
        bail!("tidy: {} findings", found.len());
    }
    Ok(())
}
