//! What both sides are measured on, made where it is not there: pairs and a model with random weights.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{child, setup};

/// A script of `benchmarks/peer/`.
pub fn script(root: &Path, name: &str) -> PathBuf {
    root.join("benchmarks").join("peer").join(name)
}

/// Two pairs of square JPEG files in `folder`, made where they are not there.
///
/// # Errors
/// The script fails.
pub fn make_pairs(root: &Path, python: &Path, folder: &Path, resolution: u32) -> Result<()> {
    if folder.join("metadata.jsonl").is_file() {
        return Ok(());
    }
    let mut command = setup::python_command(python);
    command.arg(script(root, "make.py")).arg("pairs").arg(folder);
    child::run(command.args(["--resolution", &resolution.to_string()]))
}

/// A model with random weights in `folder`, made where it is not there: SD1.5's sizes in f32, or as small as can be.
///
/// # Errors
/// The script fails, or what it made cannot be moved into place.
pub fn make_model(root: &Path, python: &Path, folder: &Path, tiny: bool) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    let mut command = setup::python_command(python);
    if tiny {
        command.arg(script(root, "make.py")).arg("tiny").arg(&partial);
    } else {
        let fresh = root.join("golden").join("verify").join("fresh.py");
        command.arg(fresh).arg("sd1").arg(&partial).args(["--dtype", "float32"]);
    }
    println!("bench: making {}", folder.display());
    child::run(&mut command)?;
    Ok(fs::rename(&partial, folder)?)
}
