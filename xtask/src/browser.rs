//! What tests of pages need beside a browser: axe-core, which finds barriers in them. It is a tool of tests, under the Mozilla Public License,
//! and becomes no part of the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::child;

/// The package, and what it is.
const PACKAGE: &str = "axe-core@4.10.3";
const ARCHIVE: &str = "axe-core-4.10.3.tgz";
const SHA256: &str = "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292";

/// Fetches the package by npm into `.axe`, unless it is there.
///
/// # Errors
/// Without npm or a network, and for a package that is another one.
pub fn run(root: &Path) -> Result<()> {
    let folder = root.join(".axe");
    if folder.join("axe.min.js").is_file() {
        println!("axe-core is in {}", folder.display());
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    child::run(Command::new("npm").args(["pack", PACKAGE, "--silent"]).current_dir(&folder))
        .context("npm fetches axe-core; install it, or put axe.min.js of axe-core 4.10.3 into .axe")?;
    let bytes = fs::read(folder.join(ARCHIVE))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == SHA256, "{ARCHIVE} has the SHA-256 {found}; wanted {SHA256}");
    let names = ["xzf", ARCHIVE, "--strip-components=1", "package/axe.min.js"];
    child::run(Command::new("tar").args(names).current_dir(&folder))?;
    println!("axe-core is in {}", folder.display());
    Ok(())
}
