//! Programs that the commands start.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup;

/// A cargo command in `root` that builds exactly as one typed there would.
///
/// The outer `cargo xtask` leaves variables behind that the inner build must not see: it would take them for changes and
/// build again. A `LIBTORCH` of the user's stays when set-up adopted it.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if !setup::named_by_user(root).is_some_and(|named| setup::is_linked(root, &named)) {
        command.env_remove("LIBTORCH");
    }
    command
}

/// The program, built first. It runs in the folder where the user stands: paths among its arguments are meant from there.
///
/// # Errors
/// It does not build.
pub fn program(root: &Path) -> Result<Command> {
    // `--workspace`: with the features that the tests are built with, so that neither builds again what the other did.
    Ok(Command::new(build(root, "tastemaker", &["--workspace", "--bin", "tastemaker"])?))
}

/// Builds an executable of this name as `arguments` say, and returns where it is.
///
/// # Errors
/// It does not build.
pub fn build(root: &Path, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    build_with(&mut cargo(root), name, arguments)
}

/// [`build`] by a cargo command of [`cargo`] that has an environment of its own.
///
/// # Errors
/// It does not build.
pub fn build_with(cargo: &mut Command, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let build = ["build", "--message-format", "json-render-diagnostics"];
    let messages = output(cargo.args(build).args(arguments).stderr(Stdio::inherit()))?;
    let mut built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program =
        built.rfind(|message| message["target"]["name"] == name && message["executable"].is_string());
    let program = program.as_ref().and_then(|message| message["executable"].as_str());
    program.map(PathBuf::from).context("cargo did not say where the program is")
}

/// Runs `command` and waits for it.
///
/// # Errors
/// It cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed.
///
/// # Errors
/// It cannot be started, does not succeed, or prints something that is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, why.trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed text that is not UTF-8", shown(command)))
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> = [program].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
