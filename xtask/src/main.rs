//! `cargo xtask`: the one entry for those who work on the project.

mod bench;
mod browser;
mod child;
mod docs;
mod golden;
mod package;
mod setup;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Set-up, demonstration, tests and checks of tastemaker. Commands that build run the set-up first.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install libtorch and point this checkout at it.
    Setup(setup::Options),
    /// Align the embedded model with each method and write a report: `tastemaker demo`.
    Demo(Rest),
    /// Run every test: `cargo test --workspace`.
    Test(Rest),
    /// Everything a change must pass: format, clippy, tests, tidy, generated docs.
    Check,
    /// Fetch what tests of pages need beside chromium and chromium-driver: axe-core.
    Browser,
    /// Check the invariants of docs/architecture.md.
    Tidy {
        /// Only list the words that docs/vocabulary.md replaces.
        #[arg(long)]
        words: bool,
    },
    /// Record golden files again from the published packages, all areas or one.
    Golden {
        /// A folder of golden/.
        area: Option<String>,
    },
    /// Training steps at real size, ours beside PyTorch's: time and memory, written to benchmarks/.
    Bench(Box<bench::Options>),
    /// A wheel for Python environments that have torch: no compiler and no Rust where it is installed.
    Wheel(package::Options),
    /// Write docs/reference from the built program.
    Docs {
        /// Only say whether the files are up to date.
        #[arg(long)]
        check: bool,
    },
}

/// Arguments handed on as they are.
#[derive(clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = root()?;
    match task {
        Task::Setup(options) => setup::run(&root, options),
        Task::Demo(Rest { rest }) => demo(&root, &rest),
        Task::Test(Rest { rest }) => test(&root, &rest),
        Task::Check => check(&root),
        Task::Browser => browser::run(&root),
        Task::Tidy { words: true } => tidy::run_words(&root),
        Task::Tidy { words: false } => tidy::run(&root),
        Task::Golden { area } => golden::run(&root, area.as_deref()),
        Task::Bench(options) => {
            setup::run(&root, setup::Options::default())?;
            bench::run(&root, &options)
        }
        Task::Wheel(options) => package::wheel(&root, &options),
        Task::Docs { check } => {
            setup::run(&root, setup::Options::default())?;
            docs::run(&root, check)
        }
    }
}

fn demo(root: &Path, rest: &[OsString]) -> Result<()> {
    setup::run(root, setup::Options::default())?;
    child::run(child::program(root)?.arg("demo").args(rest))
}

fn test(root: &Path, rest: &[OsString]) -> Result<()> {
    setup::run(root, setup::Options::default())?;
    child::run(child::cargo(root).args(["test", "--workspace"]).args(rest))
}

fn check(root: &Path) -> Result<()> {
    setup::run(root, setup::Options::default())?;
    child::run(child::cargo(root).args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    child::run(child::cargo(root).args(clippy))?;
    test(root, &[])?;
    tidy::run(root)?;
    docs::run(root, true)
}

/// The checkout this program was built in.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("the xtask package is not inside a checkout")?.to_owned())
}
