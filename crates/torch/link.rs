//! Build script of every package that links libtorch.
//!
//! It writes the place of libtorch into the executables (an rpath), so that they run with no environment variable.
//! The place is the checkout's `.libtorch`, which `cargo xtask setup` points at a fitting libtorch, and behind it the
//! folder that link leads to today, for executables that outlive the checkout.
//! See `docs/decisions/0003-libtorch-setup.md`.

use std::path::{Path, PathBuf};

const RUN_PATH: &str = "TASTEMAKER_RUN_PATH";

pub(crate) fn main() {
    let manifest = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    let Some(root) = manifest.ancestors().nth(2) else {
        stop(&format!("{} is not inside the checkout's crates folder", manifest.display()));
    };
    let link = root.join(".libtorch");
    let library = link.join("lib").join(core_library());
    println!("cargo::rerun-if-changed={}", library.display());
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if !library.is_file() {
        stop("libtorch is not set up in this checkout: run `cargo xtask setup` once, then build again");
    }
    refuse_another_libtorch(&link);

    if env("CARGO_CFG_TARGET_OS") == "linux" {
        // DT_RPATH, not DT_RUNPATH: a library path left in the user's environment must not swap libtorch.
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    }
    // For a program that is packed: where libtorch is from where it lies.
    println!("cargo::rerun-if-env-changed={RUN_PATH}");
    if let Ok(path) = std::env::var(RUN_PATH) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
        return;
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", link.join("lib").display());
    if let Ok(target) = link.join("lib").canonicalize() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", target.display());
    }
}

/// Stops when `LIBTORCH` names something else than what set-up chose: headers of one libtorch and code of another would
/// be mixed.
fn refuse_another_libtorch(link: &Path) {
    let Some(named) = std::env::var_os("LIBTORCH").map(PathBuf::from) else { return };
    if named.canonicalize().ok() != link.canonicalize().ok() {
        stop(&format!(
            "LIBTORCH is {}, which is not the libtorch this checkout is set up with: unset it, or run `cargo xtask setup` \
             to adopt it",
            named.display()
        ));
    }
}

fn core_library() -> &'static str {
    if env("CARGO_CFG_TARGET_OS") == "macos" { "libtorch_cpu.dylib" } else { "libtorch_cpu.so" }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn stop(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
