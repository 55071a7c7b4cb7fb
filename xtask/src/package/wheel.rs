//! A wheel: the program in a Python package, with a launcher that finds the torch beside it.
//!
//! Source: packaging.python.org, "Binary distribution format".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::needs;
use crate::{child, setup};

/// The version of the program and of its wheel.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files that carry the terms of the program and of what is in it.
const LICENSES: [&str; 3] = ["LICENSE-MIT", "LICENSE-APACHE", "NOTICE"];

/// The time of every file, the first that zip can hold: the same build makes the same wheel.
const SINCE_1970: Duration = Duration::from_secs(315_532_800);

/// Writes the wheel into the folder `out` and returns where.
///
/// # Errors
/// A file cannot be read or written, or there is no Python, which packs it.
pub fn write(root: &Path, program: &Path, out: &Path) -> Result<PathBuf> {
    let tag = format!("{}_{}", needs::tag(program)?, std::env::consts::ARCH);
    let tree = out.join(format!(".wheel-{}", std::process::id()));
    let name = format!("tastemaker-{VERSION}-py3-none-{tag}.whl");
    let packed = lay_out(root, program, &tree, &tag).and_then(|()| pack(&tree, &out.join(&name)));
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    packed.map(|()| out.join(name))
}

/// The files of the wheel as they lie in it.
fn lay_out(root: &Path, program: &Path, tree: &Path, tag: &str) -> Result<()> {
    let mut record = String::new();
    let mut add = |inside: String, contents: &[u8], mode: u32| -> Result<()> {
        put(&tree.join(&inside), contents, mode)?;
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(contents));
        record.push_str(&format!("{inside},sha256={hash},{}\n", contents.len()));
        Ok(())
    };
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    for module in ["__init__.py", "__main__.py"] {
        let source = root.join("packaging").join("python").join("tastemaker").join(module);
        add(format!("tastemaker/{module}"), &read(&source)?, 0o644)?;
    }
    add("tastemaker/bin/tastemaker".to_owned(), &read(program)?, 0o755)?;
    let about = format!("tastemaker-{VERSION}.dist-info");
    for license in LICENSES {
        add(format!("{about}/licenses/{license}"), &read(&root.join(license))?, 0o644)?;
    }
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    add(format!("{about}/METADATA"), metadata(&readme).as_bytes(), 0o644)?;
    let wheel = format!(
        "Wheel-Version: 1.0\nGenerator: tastemaker xtask {VERSION}\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n"
    );
    add(format!("{about}/WHEEL"), wheel.as_bytes(), 0o644)?;
    let commands = "[console_scripts]\ntastemaker = tastemaker.__main__:main\n";
    add(format!("{about}/entry_points.txt"), commands.as_bytes(), 0o644)?;
    let list = format!("{about}/RECORD");
    record.push_str(&format!("{list},,\n"));
    put(&tree.join(&list), record.as_bytes(), 0o644)?;
    set_times(tree)
}

fn put(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    fs::create_dir_all(path.parent().context("files lie in folders")?)?;
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn metadata(readme: &str) -> String {
    let licenses: String = LICENSES.iter().map(|file| format!("License-File: {file}\n")).collect();
    format!(
        "Metadata-Version: 2.4\nName: tastemaker\nVersion: {VERSION}\n\
         Summary: Aligns text-to-image diffusion models with human taste\n\
         License-Expression: MIT OR Apache-2.0\n{licenses}\
         Keywords: diffusion,preference optimization,dpo,stable diffusion,sdxl\n\
         Requires-Python: >=3.10\nRequires-Dist: torch==2.11.*\n\
         Description-Content-Type: text/markdown\n\n{readme}"
    )
}

fn set_times(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            set_times(&path)?;
        }
        let set = |path: &Path| -> io::Result<()> {
            File::open(path)?.set_modified(SystemTime::UNIX_EPOCH + SINCE_1970)
        };
        set(&path).with_context(|| format!("cannot set the time of {}", path.display()))?;
    }
    Ok(())
}

/// Python's own module keeps permissions and times.
fn pack(tree: &Path, wheel: &Path) -> Result<()> {
    if wheel.exists() {
        fs::remove_file(wheel).with_context(|| format!("cannot replace {}", wheel.display()))?;
    }
    let mut parts: Vec<PathBuf> =
        fs::read_dir(tree)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    parts.sort();
    // The list of files comes last, so that it is read without the rest.
    parts.sort_by_key(|part| part.extension().is_some());
    let mut zip = setup::python_command(&setup::first_python()?);
    child::run(zip.args(["-m", "zipfile", "-c"]).arg(wheel).args(parts))
}
