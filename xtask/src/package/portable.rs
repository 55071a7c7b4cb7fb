//! Linking against an old C library, so that the program starts on machines older than this one.
//!
//! Zig knows the symbols of every glibc and links as a compiler would. The C++ library stays the machine's own, for exceptions and
//! strings cross between the program and libtorch; of its symbols the few that are younger are defined in
//! `crates/torch/shim/old_libraries.cpp`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{child, golden};

/// The C library that is linked against: that of manylinux_2_28, such as in RHEL 8.
const GLIBC: &str = "2.28";

/// A program for cargo to link with, made on first use and kept in the user's cache.
///
/// # Errors
/// There is no Python, Zig cannot be installed, or there is no `g++`.
pub fn linker(root: &Path) -> Result<PathBuf> {
    let python = golden::environment("packaging", &root.join("packaging").join("requirements.txt"))?;
    let library = child::output(Command::new("g++").arg("-print-file-name=libstdc++.so"))?;
    let library = library.trim();
    if !Path::new(library).is_absolute() {
        bail!("g++ has no libstdc++.so; wanted a whole C++ compiler (Debian: apt install g++)");
    }
    let script = format!(
        "#!/bin/sh\n\
         # Zig would take its own C++ library for this name, which is not that of libtorch.\n\
         for argument; do\n  shift\n  case $argument in\n    -lstdc++) set -- \"$@\" '{library}' ;;\n    \
         *) set -- \"$@\" \"$argument\" ;;\n  esac\ndone\n\
         exec '{}' -m ziglang cc -target {}-linux-gnu.{GLIBC} -nostdlib++ \"$@\"\n",
        python.display(),
        std::env::consts::ARCH,
    );
    // Always in one place, or everything would be built again.
    let folder = python.parent().context("a Python lies in a folder")?;
    let (path, fresh) =
        (folder.join("old-glibc-gcc"), folder.join(format!("old-glibc-{}", std::process::id())));
    fs::write(&fresh, script).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
