//! The Python interpreters of the machine, asked without importing torch.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Prints the installed torch's version and folder; reading the metadata takes milliseconds, importing torch seconds.
const WHERE_IS_TORCH: &str = "\
import importlib.metadata as m
d = m.distribution('torch')
print(d.version)
print(d.locate_file('torch'))
";

/// Interpreters worth asking, best first: the active environment's, then whatever `python3` means.
pub fn interpreters() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os);
    let active =
        active.map(|folder| Path::new(&folder).join("bin").join("python")).filter(|path| path.exists());
    let found = on_path("python3").or_else(|| on_path("python"));
    active.chain(found).collect()
}

/// The first interpreter, for work that any Python can do.
///
/// # Errors
/// There is no Python on this machine.
pub fn first_python() -> Result<PathBuf> {
    interpreters().into_iter().next().context("no python3 on this machine: install Python 3.10 or later")
}

/// The full path of `program`, searched as a shell would.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// A command for `python` that reads nothing from the terminal and installs nothing into the user's own packages.
pub fn command(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.stdin(Stdio::null());
    // `pip install --target` refuses to work under a user configuration that asks for either of these.
    command.envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0")]);
    command
}

/// The version and folder of the torch that `python` would import; `None` when it has none.
///
/// # Errors
/// The interpreter does not run.
pub fn installed_torch(python: &Path) -> Result<Option<(String, PathBuf)>> {
    let output = command(python).args(["-c", WHERE_IS_TORCH]).output();
    let output = output.with_context(|| format!("cannot run {}", python.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    Ok(lines.next().zip(lines.next()).map(|(version, folder)| (version.to_owned(), PathBuf::from(folder))))
}

/// An interpreter that has pip: the first one, or else a fresh virtual environment in `scratch` made with it.
///
/// # Errors
/// There is no Python, or it has neither pip nor the means to get it.
pub fn with_pip(scratch: &Path) -> Result<PathBuf> {
    let python = first_python()?;
    if succeeds(&python, ["-m", "pip", "--version"].map(OsString::from)) {
        return Ok(python);
    }
    let environment = scratch.join("pip");
    if !succeeds(&python, ["-m".into(), "venv".into(), environment.clone().into()]) {
        bail!(
            "{} has no pip and cannot make a virtual environment: install it (Debian: apt install python3-pip)",
            python.display()
        );
    }
    Ok(environment.join("bin").join("python"))
}

fn succeeds<const N: usize>(python: &Path, arguments: [OsString; N]) -> bool {
    command(python).args(arguments).output().is_ok_and(|output| output.status.success())
}
