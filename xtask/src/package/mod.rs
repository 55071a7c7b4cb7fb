//! What users install, from a release build: a wheel for Python environments that have torch.

mod needs;
mod portable;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{child, setup};

/// Where packages go, and for which machines.
#[derive(Args)]
pub struct Options {
    /// The folder for the package
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Link with this machine's C library: faster to make, for machines as new as this one
    #[arg(long)]
    native: bool,
}

/// The target, named so that what is said about it does not hold for programs of the build itself.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes the wheel.
///
/// # Errors
/// The program does not build, asks for more than its tag promises, or the file cannot be written.
pub fn wheel(root: &Path, options: &Options) -> Result<()> {
    setup::run(root, setup::Options::default())?;
    let program = program(root, options.native, "$ORIGIN/../../torch/lib")?;
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make {}", options.out.display()))?;
    let path = wheel::write(root, &program, &options.out)?;
    let bytes = fs::metadata(&path)?.len();
    println!("wheel: {} ({:.1} MiB)", path.display(), bytes as f64 / f64::from(1 << 20));
    Ok(())
}

/// The program of a release build, which looks for libtorch at `run_path`.
fn program(root: &Path, native: bool, run_path: &str) -> Result<PathBuf> {
    let mut cargo = child::cargo(root);
    cargo.env("TASTEMAKER_RUN_PATH", run_path);
    // A source without its history has none.
    if let Ok(commit) =
        child::output(Command::new("git").current_dir(root).args(["rev-parse", "--short", "HEAD"]))
    {
        cargo.env("TASTEMAKER_COMMIT", commit.trim());
    }
    if !native {
        // For the target alone: what runs in the build is linked as ever.
        let linker = portable::linker(root)?;
        cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("-Clinker={}\x1f-Clinker-flavor=gcc", linker.display()));
        cargo.env("TASTEMAKER_OLD_LIBRARIES", "1");
    }
    let arguments = ["--release", "--target", TARGET, "--package", "tastemaker-cli", "--bin", "tastemaker"];
    let program = child::build_with(&mut cargo, "tastemaker", &arguments)?;
    needs::prefer_own_path(&program)?;
    Ok(program)
}
