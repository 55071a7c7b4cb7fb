//! The check of `benchmarks/gpu/run.sh`: prepared for a machine without Rust, or run on this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{child, setup};

/// What is prepared or run.
#[derive(Args)]
pub struct Options {
    /// Put what the check needs on a machine without Rust and network into this folder
    #[arg(long, value_name = "DIR")]
    prepare: Option<PathBuf>,
    /// Run it on this machine's device
    #[arg(long)]
    run: bool,
    /// Run it on the CPU at tiny sizes, without the peer, as the tests are built
    #[arg(long, conflicts_with_all = ["prepare", "run"])]
    smoke: bool,
}

/// What may be carried to a machine.
const LIMIT: u64 = 60 << 20;

/// Our side, as fast as it gets and as small.
const RELEASE: [&str; 5] = ["--release", "--package", "tastemaker-train", "--example", "gpu"];

/// Prepares or runs the check.
///
/// # Errors
/// It does not build, does not fit, cannot be downloaded, or a check failed.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if !(options.run || options.smoke || options.prepare.is_some()) {
        bail!("wanted --run, --prepare DIR or --smoke");
    }
    let folder = match &options.prepare {
        Some(folder) => folder.clone(),
        None => setup::user_cache()?.join("bench").join("gpu"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let arguments: &[&str] = if options.smoke { &["--workspace", "--example", "gpu"] } else { &RELEASE };
    let program = folder.join("gpu");
    let built = child::build(root, "gpu", arguments)?;
    fs::copy(&built, &program).with_context(|| format!("cannot write {}", program.display()))?;
    if !options.smoke {
        wheels(root, &folder.join("wheels"))?;
        let carried = size(&folder.join("wheels"))? + fs::metadata(&program)?.len();
        println!("bench: {} of at most {} MiB in {}", carried >> 20, LIMIT >> 20, folder.display());
        if carried > LIMIT {
            bail!("{} MiB are more than the {} that can be carried", carried >> 20, LIMIT >> 20);
        }
    }
    if options.run || options.smoke {
        let mut script = Command::new(root.join("benchmarks").join("gpu").join("run.sh"));
        script.arg(&folder);
        if options.smoke {
            script.args(["--device", "cpu", "--smoke", "--no-peer"]).env("OMP_NUM_THREADS", "1");
        }
        child::run(&mut script)?;
    }
    Ok(())
}

/// The packages of the peer, for Python 3.12, whatever Python is here.
fn wheels(root: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--only-binary=:all:"];
    let mut pip = setup::python_command(&setup::first_python()?);
    pip.args(download).args(["--python-version", "3.12", "--dest"]).arg(folder).arg("--requirement");
    child::run(pip.arg(root.join("benchmarks").join("gpu").join("requirements.txt")))
}

fn size(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
