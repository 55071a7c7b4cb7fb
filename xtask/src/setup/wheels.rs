//! Downloading and unpacking wheels.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::packages::Package;
use super::python;
use crate::child;

/// The wheel's Python is pinned too: its libtorch is the same for all, and the user's own Python then need not be one
/// that torch publishes for.
const WHEEL_TAGS: [&str; 6] = ["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"];

/// Unpacks libraries, headers and licenses of wheels below a folder, removes each wheel, and prints a line of JSON for each library.
const UNPACK: &str = r#"
import fnmatch, hashlib, json, os, sys, zipfile
LIBRARIES = ["torch/lib/*", "nvidia/*/lib/*.so*"]
OTHERS = ["torch/include/*", "*.dist-info/*"]
target, *wheels = sys.argv[1:]
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            is_library = any(fnmatch.fnmatchcase(entry.filename, pattern) for pattern in LIBRARIES)
            if entry.is_dir() or not (is_library or any(fnmatch.fnmatchcase(entry.filename, p) for p in OTHERS)):
                continue
            path = archive.extract(entry, target)
            if is_library:
                os.chmod(path, 0o755)
                digest = hashlib.sha256()
                with open(path, "rb") as file:
                    while part := file.read(1 << 22):
                        digest.update(part)
                print(json.dumps({"path": entry.filename, "bytes": entry.file_size, "sha256": digest.hexdigest()}))
    os.remove(wheel)
"#;

/// A library as it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// Where it lies in the installation.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Downloads packages, which pip holds to their SHA-256, and unpacks what builds and programs use of them below `target`.
///
/// # Errors
/// The download fails, a wheel is not the pinned one, a disk is full, or a promised library is not in its package.
pub fn fetch(packages: &[Package], target: &Path) -> Result<Vec<Library>> {
    // On the disk that has room for what is unpacked; the system's own temporary folder is often too small.
    let scratch = target.join("scratch");
    fs::create_dir(&scratch)?;
    let list = scratch.join("packages.txt");
    fs::write(&list, packages.iter().map(Package::requirement).collect::<String>())?;
    let python = python::with_pip(&scratch)?;
    let wheels = scratch.join("wheels");
    let mut pip = python::command(&python);
    pip.args(["-m", "pip", "download", "--no-input", "--no-deps", "--no-cache-dir", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--quiet", "--require-hashes"])
        .args(WHEEL_TAGS)
        .arg("--dest")
        .arg(&wheels)
        .arg("--requirement")
        .arg(&list)
        .env("TMPDIR", &scratch)
        .env("PIP_ROOT_USER_ACTION", "ignore");
    let status = pip.status().context("cannot run pip")?;
    if !status.success() {
        bail!(
            "pip could not download all of it ({status}); its own message is above. Set-up starts afresh when run again"
        );
    }
    let mut found = fs::read_dir(&wheels)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.sort();
    let printed = child::output(python::command(&python).args(["-c", UNPACK]).arg(target).args(found))?;
    fs::remove_dir_all(&scratch).context("cannot remove the scratch folder")?;
    let libraries = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Library>, _>>()?;
    let promised = packages.iter().flat_map(|package| package.provides);
    let is_there = |name: &str| libraries.iter().any(|library| library.path.ends_with(&format!("/{name}")));
    match promised.copied().find(|name| !is_there(name)) {
        Some(name) => bail!("no downloaded package has {name}"),
        None => Ok(libraries),
    }
}
