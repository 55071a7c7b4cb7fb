//! Whether a folder holds a libtorch this project can link and load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{elf, needs};

/// The release of libtorch that the pinned `tch` is written for.
pub const TORCH: &str = "2.11.0";

/// Headers that carry the version macros: where 2.9 and later keep them, then where earlier releases did.
const VERSION_HEADERS: [&str; 2] =
    ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];

/// A libtorch that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libtorch {
    /// The folder with `lib` and `include`, canonical.
    pub folder: PathBuf,
    /// The release found in its headers, such as `2.11.0`.
    pub version: String,
}

/// File names of the libraries an executable of ours is linked to.
pub fn core_libraries() -> [&'static str; 2] {
    if cfg!(target_os = "macos") {
        ["libtorch_cpu.dylib", "libc10.dylib"]
    } else {
        ["libtorch_cpu.so", "libc10.so"]
    }
}

/// Checks headers, version, completeness and loadability of the libtorch in `folder`.
///
/// # Errors
/// The first thing that does not fit, as one sentence.
pub fn check(folder: &Path) -> Result<Libtorch> {
    let folder = folder.canonicalize().with_context(|| format!("{} does not exist", folder.display()))?;
    let version = header_version(&folder)?;
    if release(&version) != release(TORCH) {
        bail!("it is libtorch {version}, and {TORCH} is wanted");
    }
    for name in core_libraries() {
        let library = folder.join("lib").join(name);
        if !library.is_file() {
            bail!("{} is missing", library.display());
        }
        if cfg!(target_os = "linux") {
            elf::whole(&library)?;
        }
    }
    if cfg!(target_os = "linux") {
        loads(&folder.join("lib").join(core_libraries()[0]))?;
    }
    Ok(Libtorch { folder, version })
}

/// Checks that the CUDA part of the libtorch in `folder` is there and that the loader finds everything it needs, but for the
/// libraries of NVIDIA's driver. No code of it runs.
///
/// # Errors
/// What is missing, as one sentence.
pub fn check_cuda(folder: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("CUDA is supported on Linux alone");
    }
    let library = folder.join("lib").join("libtorch_cuda.so");
    if !library.is_file() {
        bail!("it is a libtorch without CUDA");
    }
    elf::whole(&library)?;
    let missing = needs::missing(&library)?;
    let Some(first) = missing.first() else { return Ok(()) };
    let names: BTreeSet<&str> = missing.iter().map(|missing| missing.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    bail!(
        "its CUDA part needs {}, which the loader does not find (the first for {})",
        names.join(", "),
        first.by.display()
    )
}

/// The part of a version that must agree: the C++ interface changes between minor releases and not within one.
fn release(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.split('.');
    Some((parts.next()?, parts.next()?))
}

fn header_version(folder: &Path) -> Result<String> {
    let texts = VERSION_HEADERS.iter().filter_map(|header| fs::read_to_string(folder.join(header)).ok());
    texts.filter_map(|text| version_macros(&text)).next().with_context(|| {
        format!("{} has no libtorch headers that say their version", folder.join("include").display())
    })
}

fn version_macros(header: &str) -> Option<String> {
    let number = |name: &str| {
        header.lines().find_map(|line| {
            let value = line.trim().strip_prefix("#define")?.trim().strip_prefix(name)?;
            value.trim().parse::<u32>().ok()
        })
    };
    let (major, minor) = (number("TORCH_VERSION_MAJOR")?, number("TORCH_VERSION_MINOR")?);
    Some(format!("{major}.{minor}.{}", number("TORCH_VERSION_PATCH")?))
}

/// Asks the dynamic loader to find everything the library needs, without running any of its code.
fn loads(library: &Path) -> Result<()> {
    // A library path of the user's must not make up for a missing part: executables do not see it later.
    let Ok(output) = Command::new("ldd").arg(library).env_remove("LD_LIBRARY_PATH").output() else {
        // Some C libraries ship no `ldd`; the linker then reports what is missing.
        return Ok(());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let missing = missing_libraries(&text);
    if !missing.is_empty() {
        bail!("{} needs {}, which the loader does not find", library.display(), missing.join(", "));
    }
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("the loader refuses {}: {}", library.display(), why.trim());
    }
    Ok(())
}

fn missing_libraries(ldd: &str) -> Vec<&str> {
    let mut names: Vec<&str> = ldd
        .lines()
        .filter(|line| line.contains("not found"))
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.trim_end_matches(':'))
        .collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{check, check_cuda, core_libraries, missing_libraries, version_macros};

    fn headers(minor: u32) -> String {
        format!(
            "#pragma once\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n\
             #define TORCH_VERSION_PATCH 0\n"
        )
    }

    #[test]
    fn the_version_is_read_from_the_macros() {
        assert_eq!(version_macros(&headers(11)).as_deref(), Some("2.11.0"));
        assert_eq!(version_macros("#define TORCH_VERSION_MAJOR 2\n"), None);
    }

    #[test]
    fn libraries_the_loader_lacks_are_named() {
        let ldd = "\tlibc10.so => /x/libc10.so (0x1)\n\tlibcupti.so.13 => not found\n\tlibcudart.so.13 => not found\n";
        assert_eq!(missing_libraries(ldd), ["libcupti.so.13", "libcudart.so.13"]);
        assert!(missing_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n").is_empty());
    }

    #[test]
    fn a_folder_without_headers_another_release_and_a_cut_library_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let why = || check(folder.path()).expect_err("an unfit folder").to_string();
        assert!(why().contains("no libtorch headers"), "{}", why());

        let header = folder.path().join("include/torch/headeronly");
        fs::create_dir_all(&header).expect("a made folder");
        fs::write(header.join("version.h"), headers(6)).expect("a written header");
        assert_eq!(why(), "it is libtorch 2.6.0, and 2.11.0 is wanted");

        fs::write(header.join("version.h"), headers(11)).expect("a written header");
        assert!(why().ends_with("is missing"), "{}", why());

        if cfg!(target_os = "linux") {
            fs::create_dir_all(folder.path().join("lib")).expect("a made folder");
            fs::write(folder.path().join("lib").join(core_libraries()[0]), b"\x7fELF")
                .expect("a written file");
            assert!(why().contains("cut short"), "{}", why());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_libtorch_without_cuda_and_a_cut_cuda_part_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let why = || check_cuda(folder.path()).expect_err("no CUDA").to_string();
        assert_eq!(why(), "it is a libtorch without CUDA");
        fs::create_dir_all(folder.path().join("lib")).expect("a made folder");
        fs::write(folder.path().join("lib/libtorch_cuda.so"), b"\x7fELF").expect("a written file");
        assert!(why().contains("cut short"), "{}", why());
    }
}
