//! The pinned libtorch in the per-user cache that all checkouts share.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::fit::{self, Libtorch, TORCH};
use super::python;

/// What libtorch's CPU library is linked to on Linux besides the system: two small packages, exact releases.
const LINUX_COMPANIONS: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// The wheel's Python is pinned too: its libtorch is the same for all, and the user's own Python then need not be one
/// that torch publishes for.
const WHEEL_TAGS: [&str; 6] = ["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"];

const STAMP: &str = "checked.json";

/// Libraries an executable of ours loads: hashed at installation. All other files are checked by their size.
const HASHED: [&str; 4] = ["libtorch_cpu.", "libc10.", "libcudart.", "libcupti."];

/// What was checked when the installation was accepted; an installation without it counts as half done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    format: u32,
    torch: String,
    files: Vec<Checked>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checked {
    path: String,
    bytes: u64,
    sha256: String,
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
    let text = fs::read_to_string(place.join(STAMP)).context("it was never completed")?;
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
    fit::check(&place.join("torch"))
}

/// Downloads the pinned wheel to `place` unless another process has just done so, checks it and returns it.
///
/// The work happens in a sibling folder that is renamed when every check has passed, so `place` is complete or absent.
///
/// # Errors
/// The cache cannot be written, the download fails, or what came does not pass the checks.
pub fn install(place: &Path) -> Result<Libtorch> {
    let shelf = place.parent().context("the installation needs a parent folder")?;
    fs::create_dir_all(shelf).with_context(|| format!("cannot make {}", shelf.display()))?;
    let _lock = lock(&shelf.join("lock"))?;
    if let Ok(libtorch) = installed(place) {
        return Ok(libtorch);
    }
    let partial = sweep(place)?;
    println!("setup: downloading torch {TORCH} (about 0.6 GB, 1.2 GB on disk) to {}", place.display());
    download(&partial)?;
    let files = verify(&partial)?;
    fit::check(&partial.join("torch")).context("the downloaded libtorch does not fit")?;
    let stamp = Stamp { format: 1, torch: TORCH.to_owned(), files };
    write_synced(&partial.join(STAMP), &serde_json::to_string_pretty(&stamp)?)?;
    fs::rename(&partial, place).with_context(|| format!("cannot put {} in place", place.display()))?;
    fit::check(&place.join("torch"))
}

/// Waits until no other process installs. The lock ends with the process that holds it, however it ends.
fn lock(path: &Path) -> Result<File> {
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
    for left in [place, &partial] {
        if left.exists() {
            println!("setup: removing the incomplete {}", left.display());
            fs::remove_dir_all(left).with_context(|| format!("cannot remove {}", left.display()))?;
        }
    }
    fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    Ok(partial)
}

fn download(target: &Path) -> Result<()> {
    // The wheel is unpacked before it is moved; the system's own temporary folder is often too small for it.
    let scratch = target.join("scratch");
    fs::create_dir(&scratch)?;
    let mut pip = python::command(&python::with_pip(&scratch)?);
    pip.args(["-m", "pip", "install", "--no-input", "--no-deps", "--no-compile", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--no-warn-script-location", "--quiet"])
        .args(WHEEL_TAGS)
        .arg("--target")
        .arg(target)
        .arg(format!("torch=={TORCH}"))
        .env("TMPDIR", &scratch)
        .env("PIP_ROOT_USER_ACTION", "ignore");
    if cfg!(target_os = "linux") {
        pip.args(LINUX_COMPANIONS);
    }
    let status = pip.status().context("cannot run pip")?;
    if !status.success() {
        bail!(
            "pip could not download libtorch ({status}); its own message is above. Set-up starts afresh when run again"
        );
    }
    fs::remove_dir_all(&scratch).context("cannot remove the scratch folder")
}

/// Compares every file below `root` with the list its package carries.
fn verify(root: &Path) -> Result<Vec<Checked>> {
    let mut hashed = Vec::new();
    for entry in fs::read_dir(root)? {
        let list = entry?.path().join("RECORD");
        if !list.is_file() {
            continue;
        }
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        for line in text.lines() {
            let Some((path, digest, bytes)) = listed(line) else { continue };
            let found = fs::metadata(root.join(path)).map_or(0, |metadata| metadata.len());
            if found != bytes {
                bail!("{path} has {found} bytes and {bytes} were published");
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            if HASHED.iter().any(|start| name.starts_with(start)) {
                let sha256 = hash(&root.join(path))?;
                if base64url(&sha256) != digest {
                    bail!("{path} is not the published file: its SHA-256 differs");
                }
                hashed.push(Checked { path: path.to_owned(), bytes, sha256: hex(&sha256) });
            }
        }
    }
    for name in fit::core_libraries() {
        if !hashed.iter().any(|file| file.path.ends_with(name)) {
            bail!("the downloaded torch does not list {name}");
        }
    }
    hashed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(hashed)
}

/// A line of a wheel's RECORD, `path,sha256=digest,bytes`, for files that lie inside the package's own folders.
/// Source: Python Packaging User Guide, "The .dist-info/RECORD file".
fn listed(line: &str) -> Option<(&str, &str, u64)> {
    let mut fields = line.rsplitn(3, ',');
    let bytes = fields.next()?.parse().ok()?;
    let digest = fields.next()?.strip_prefix("sha256=")?;
    let path = fields.next()?;
    let inside = path.starts_with("torch/") || path.starts_with("nvidia/");
    inside.then_some((path, digest, bytes))
}

fn hash(path: &Path) -> Result<[u8; 32]> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut state = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(state.finalize().into());
        }
        state.update(&buffer[..count]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| (bits << 8) | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

fn write_synced(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    File::open(path)?.sync_all().context("cannot sync the record of checks")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{STAMP, base64url, hash, hex, installed, listed, sweep, verify};

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a made folder");
        fs::write(path, text).expect("a written file");
    }

    fn wheel(root: &Path) {
        let mut record = String::from("torch/__pycache__/x.pyc,,\n../bin/torchrun,sha256=AAAA,9\n");
        for name in super::fit::core_libraries() {
            let path = format!("torch/lib/{name}");
            write(root, &path, name);
            let digest = base64url(&hash(&root.join(&path)).expect("a digest"));
            record.push_str(&format!("{path},sha256={digest},{}\n", name.len()));
        }
        write(root, "torch-2.11.0.dist-info/RECORD", &record);
    }

    #[test]
    fn digests_agree_with_published_vectors() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), "abc", "abc");
        let digest = hash(&folder.path().join("abc")).expect("a digest");
        // FIPS 180-2 appendix B.1 and RFC 4648 section 10.
        assert_eq!(hex(&digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64url(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn only_files_of_the_package_are_listed() {
        assert_eq!(listed("torch/a,b.h,sha256=xy,12"), Some(("torch/a,b.h", "xy", 12)));
        assert_eq!(listed("../../bin/torchrun,sha256=xy,12"), None);
        assert_eq!(listed("torch-2.11.0.dist-info/RECORD,,"), None);
    }

    #[test]
    fn a_whole_wheel_is_accepted() {
        let root = tempfile::tempdir().expect("a temporary folder");
        wheel(root.path());
        assert_eq!(verify(root.path()).expect("a verified wheel").len(), 2);
    }

    #[test]
    fn a_short_a_changed_and_a_missing_library_are_refused() {
        let library = format!("torch/lib/{}", super::fit::core_libraries()[0]);
        let mangled = |mangle: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().expect("a temporary folder");
            wheel(root.path());
            mangle(root.path());
            verify(root.path()).expect_err("a refusal").to_string()
        };
        let name_length = super::fit::core_libraries()[0].len();
        assert!(mangled(&|root| write(root, &library, "short")).contains("has 5 bytes"));
        assert!(mangled(&|root| write(root, &library, &"x".repeat(name_length))).contains("SHA-256 differs"));
        assert!(
            mangled(&|root| fs::remove_file(root.join(&library)).expect("a removed file")).contains("has 0")
        );
        assert!(
            mangled(&|root| write(root, "torch-2.11.0.dist-info/RECORD", "")).contains("does not list"),
            "an empty list promises nothing"
        );
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
        assert!(!place.exists());
        assert_eq!(fs::read_dir(partial).expect("a folder").count(), 0);
    }
}
