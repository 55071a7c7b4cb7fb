//! The pinned libtorch in the per-user cache that all checkouts share.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::fit::{self, Libtorch, TORCH};
use super::packages;
use super::wheels::{self, Library};

/// What was installed of libtorch itself; an installation without it counts as half done.
const STAMP: &str = "checked.json";

/// The same of NVIDIA's libraries, which may be added to an installation later.
const CUDA_STAMP: &str = "checked-cuda.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    format: u32,
    torch: String,
    files: Vec<Library>,
}

/// The folder this project keeps for one user: `$XDG_CACHE_HOME/tastemaker`, or `~/.cache/tastemaker`.
///
/// # Errors
/// The user has neither a cache folder nor a home.
pub fn user_cache() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is an absolute path")?.join("tastemaker"))
}

/// Where this machine's installation belongs inside the cache folder `cache`.
pub fn place(cache: &Path) -> PathBuf {
    let machine = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    cache.join(format!("libtorch-{TORCH}")).join(machine)
}

/// The installation at `place` when it is complete.
///
/// # Errors
/// Why it is not, as one sentence.
pub fn installed(place: &Path) -> Result<Libtorch> {
    hold_to_stamp(place, STAMP)?;
    fit::check(&place.join("torch"))
}

fn hold_to_stamp(place: &Path, stamp: &str) -> Result<()> {
    let text = fs::read_to_string(place.join(stamp)).context("it was never completed")?;
    let stamp: Stamp = serde_json::from_str(&text).context("its record of checks is damaged")?;
    if (stamp.format, stamp.torch.as_str()) != (1, TORCH) {
        bail!("its record of checks is for torch {} (format {})", stamp.torch, stamp.format);
    }
    for file in &stamp.files {
        let found = fs::metadata(place.join(&file.path)).map_or(0, |metadata| metadata.len());
        if found != file.bytes {
            bail!("{} has {found} bytes and {} were installed", file.path, file.bytes);
        }
    }
    Ok(())
}

/// Downloads the pinned wheel to `place` unless another process has just done so, checks it and returns it.
///
/// The work happens in a sibling folder that is renamed when every check has passed, so `place` is complete or absent.
///
/// # Errors
/// The cache cannot be written, the download fails, or what came does not pass the checks.
pub fn install(place: &Path) -> Result<Libtorch> {
    let _lock = lock(place)?;
    if let Ok(libtorch) = installed(place) {
        return Ok(libtorch);
    }
    remove(place)?;
    let partial = sweep(place)?;
    println!("setup: downloading torch {TORCH} (0.5 GB, 1.1 GB on disk) to {}", place.display());
    let files = wheels::fetch(&packages::core(), &partial)?;
    fit::check(&partial.join("torch")).context("the downloaded libtorch does not fit")?;
    write_stamp(&partial.join(STAMP), files)?;
    fs::rename(&partial, place).with_context(|| format!("cannot put {} in place", place.display()))?;
    installed(place)
}

/// Adds the libraries that the CUDA part of the installation at `place` needs, unless they are there.
///
/// # Errors
/// As [`install`]; the rest of the installation stays as it is.
pub fn install_cuda(place: &Path) -> Result<()> {
    let _lock = lock(place)?;
    let torch = place.join("torch");
    if hold_to_stamp(place, CUDA_STAMP).is_ok() && fit::check_cuda(&torch).is_ok() {
        return Ok(());
    }
    let partial = sweep(place)?;
    println!("setup: downloading NVIDIA's libraries (2 GB, 2.8 GB on disk) to {}", place.display());
    let files = wheels::fetch(&packages::CUDA, &partial)?;
    for path in everything(&partial)? {
        let target = place.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(place))?;
        fs::rename(partial.join(&path), &target)
            .with_context(|| format!("cannot put {} in place", target.display()))?;
    }
    fs::remove_dir_all(&partial).context("cannot remove the emptied folder")?;
    fit::check_cuda(&torch).context("the downloaded libraries do not fit")?;
    write_stamp(&place.join(CUDA_STAMP), files)
}

/// The files below `root`, by their paths in it.
fn everything(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    Ok(files)
}

/// Waits until no other process installs. The lock ends with the process that holds it, however it ends.
fn lock(place: &Path) -> Result<File> {
    let shelf = place.parent().context("the installation needs a parent folder")?;
    fs::create_dir_all(shelf).with_context(|| format!("cannot make {}", shelf.display()))?;
    let path = &shelf.join("lock");
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            println!("setup: another process is installing libtorch, waiting for it");
            file.lock().context("cannot wait for the other installation")?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the libtorch cache"),
    }
    Ok(file)
}

/// Removes what failed attempts left behind and returns the folder for the next one.
fn sweep(place: &Path) -> Result<PathBuf> {
    let partial = place.with_extension("partial");
    remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    Ok(partial)
}

fn remove(left: &Path) -> Result<()> {
    if left.exists() {
        println!("setup: removing the incomplete {}", left.display());
        fs::remove_dir_all(left).with_context(|| format!("cannot remove {}", left.display()))?;
    }
    Ok(())
}

fn write_stamp(path: &Path, files: Vec<Library>) -> Result<()> {
    let stamp = Stamp { format: 1, torch: TORCH.to_owned(), files };
    write_synced(path, &serde_json::to_string_pretty(&stamp)?)
}

fn write_synced(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    File::open(path)?.sync_all().context("cannot sync the record of checks")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{STAMP, installed, remove, sweep};

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a made folder");
        fs::write(path, text).expect("a written file");
    }

    #[test]
    fn an_installation_without_its_record_or_with_a_shrunken_file_is_incomplete() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let why = || installed(place.path()).expect_err("an incomplete installation").to_string();
        assert_eq!(why(), "it was never completed");
        write(place.path(), STAMP, "{");
        assert_eq!(why(), "its record of checks is damaged");
        let stamp = r#"{"format":1,"torch":"2.11.0","files":[{"path":"torch/lib/a","bytes":3,"sha256":""}]}"#;
        write(place.path(), STAMP, stamp);
        write(place.path(), "torch/lib/a", "ab");
        assert_eq!(why(), "torch/lib/a has 2 bytes and 3 were installed");
    }

    #[test]
    fn leftovers_of_failed_attempts_are_swept() {
        let shelf = tempfile::tempdir().expect("a temporary folder");
        let place = shelf.path().join("machine");
        write(&place, "half", "");
        write(&shelf.path().join("machine.partial"), "half", "");
        let partial = sweep(&place).expect("a swept shelf");
        assert!(place.exists(), "what adds to an installation leaves it alone");
        assert_eq!(fs::read_dir(partial).expect("a folder").count(), 0);
        remove(&place).expect("a removed folder");
        assert!(!place.exists());
    }
}
