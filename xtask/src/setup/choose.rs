//! The order in which libtorch is looked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::driver::{self, Driver};
use super::fit::{self, Libtorch};
use super::{install, link, python};

/// What the user may ask of set-up.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub struct Options {
    /// Look again even when the checkout's link already leads to a fitting libtorch.
    #[arg(long)]
    pub again: bool,
    /// Have a libtorch that runs on NVIDIA's devices (a download of 2 GB) [default: if the driver is found]
    #[arg(long)]
    pub cuda: bool,
    /// Do without NVIDIA's libraries even if the driver is found
    #[arg(long, conflicts_with = "cuda")]
    pub no_cuda: bool,
}

/// Whether libtorch has to run on NVIDIA's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuda {
    /// It need not.
    No,
    /// There is a driver: what is chosen now should, what was chosen before may stay.
    Better,
    /// It was asked for.
    Must,
}

/// Points the checkout at a fitting libtorch: the one `LIBTORCH` names, the one already linked, the one of the active
/// Python environment, or the pinned download. Says which, and why others were passed over.
///
/// # Errors
/// No candidate fits and the download failed, or the machine has no C++ compiler.
pub fn run(root: &Path, options: Options) -> Result<()> {
    require_compiler()?;
    let (libtorch, origin) = choose(root, options)?;
    link::point(root, &libtorch.folder)?;
    println!("setup: libtorch {} from {origin}: {}", libtorch.version, libtorch.folder.display());
    Ok(())
}

fn choose(root: &Path, options: Options) -> Result<(Libtorch, String)> {
    let cuda = wanted(options);
    if let Some(named) = named_by_user(root) {
        let origin = "LIBTORCH".to_owned();
        match fit::check(&named).and_then(|libtorch| kept(libtorch, cuda)) {
            Ok(libtorch) => return Ok((libtorch, origin)),
            Err(why) => {
                passed_over(&origin, &why);
                println!("setup: while LIBTORCH is set, plain `cargo build` stops: unset it");
            }
        }
    }
    let cached = install::place(&install::user_cache()?);
    let linked = link::place(root);
    if linked.is_symlink() && !options.again {
        match fit_linked(&linked, &cached).and_then(|libtorch| kept(libtorch, cuda)) {
            Ok(libtorch) => return Ok((libtorch, "this checkout's link".to_owned())),
            Err(why) => passed_over("this checkout's link", &why),
        }
    }
    for interpreter in python::interpreters() {
        let origin = format!("the torch of {}", interpreter.display());
        match python::installed_torch(&interpreter) {
            Ok(None) => {}
            Ok(Some((_, folder))) => match fit::check(&folder).and_then(|libtorch| chosen(libtorch, cuda)) {
                Ok(libtorch) => return Ok((libtorch, origin)),
                Err(why) => passed_over(&origin, &why),
            },
            Err(why) => passed_over(&origin, &why),
        }
    }
    let (libtorch, origin) = match install::installed(&cached) {
        Ok(libtorch) => (libtorch, "the user's cache"),
        Err(why) => {
            if cached.exists() {
                passed_over("the user's cache", &why);
            }
            (install::install(&cached)?, "the published wheel")
        }
    };
    match (cuda, (cuda != Cuda::No).then(|| install::install_cuda(&cached))) {
        (Cuda::Must, Some(Err(why))) => return Err(why),
        (_, Some(Err(why))) => println!("setup: it runs on the CPU only: {why:#}"),
        _ => {}
    }
    Ok((libtorch, origin.to_owned()))
}

fn wanted(options: Options) -> Cuda {
    if options.cuda {
        return Cuda::Must;
    }
    if options.no_cuda {
        return Cuda::No;
    }
    match driver::find() {
        Driver::Absent => Cuda::No,
        Driver::Fits => Cuda::Better,
        Driver::TooOld(version) => {
            println!(
                "setup: NVIDIA's driver {version} is too old for CUDA 13, which needs {} or later: update it, then run \
                 `cargo xtask setup --cuda`",
                driver::OLDEST
            );
            Cuda::No
        }
    }
}

/// A libtorch that is chosen now.
fn chosen(libtorch: Libtorch, cuda: Cuda) -> Result<Libtorch> {
    if cuda != Cuda::No {
        fit::check_cuda(&libtorch.folder)?;
    }
    Ok(libtorch)
}

/// A libtorch that was chosen before: only `--cuda` downloads another for NVIDIA's devices.
fn kept(libtorch: Libtorch, cuda: Cuda) -> Result<Libtorch> {
    match (cuda, chosen(libtorch.clone(), cuda)) {
        (Cuda::Better, Err(why)) => {
            println!(
                "setup: it runs on the CPU only: {why:#}; `cargo xtask setup --cuda` installs what is missing"
            );
            Ok(libtorch)
        }
        (_, result) => result,
    }
}

/// A link into the cache is held to the record of what was installed there; any other to the common checks.
fn fit_linked(linked: &Path, cached: &Path) -> Result<Libtorch> {
    let target = linked.canonicalize().with_context(|| format!("{} leads nowhere", linked.display()))?;
    let in_cache = cached.canonicalize().is_ok_and(|cached| target.starts_with(cached));
    if in_cache { install::installed(cached) } else { fit::check(linked) }
}

/// `LIBTORCH` as the user set it. Cargo sets the same variable to the checkout's own link, which is no wish.
pub fn named_by_user(root: &Path) -> Option<PathBuf> {
    let named = PathBuf::from(std::env::var_os("LIBTORCH")?);
    (named != link::place(root) && !named.as_os_str().is_empty()).then_some(named)
}

fn passed_over(origin: &str, why: &anyhow::Error) {
    println!("setup: passed over {origin}: {why:#}");
}

fn require_compiler() -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let program = compiler.split_whitespace().next().unwrap_or("c++");
    if Path::new(program).is_file() || python::on_path(program).is_some() {
        return Ok(());
    }
    bail!(
        "no C++ compiler ({program}), which the bindings to libtorch need: install one (Debian: apt install g++)"
    )
}
