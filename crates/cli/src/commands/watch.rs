//! `tastemaker watch`: runs as they go, on a page.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;
use clap::Args;
use tastemaker_store::atomic;
use tastemaker_web::server::Server;
use tastemaker_web::watch::{Runs, router};

use crate::place::{OverwriteFlag, Place, Written, starts_with};
use crate::signals::Signals;

/// The page as one file.
const PAGE: Written = Written {
    what: "a page of runs",
    is: |path| starts_with(path, "name=\"generator\" content=\"tastemaker\""),
};

/// Where the page is, unless another port is typed.
const PORT: u16 = 7009;

/// Shows runs as they go: curves with alarms, validation images, plans and logs. Runs are only read, also those of other
/// processes; several lie over each other.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct WatchArgs {
    /// Output folders of training runs, running or finished
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Port of this machine to listen on
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// Write the page as one file, as runs are now, and serve nothing
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
}

/// Runs the command.
pub fn watch(args: &WatchArgs) -> Result<()> {
    let runs = Runs::new(&args.runs)?;
    if let Some(file) = &args.export {
        let _claim = Place::file(file, "--export", PAGE).claim(args.overwrite)?;
        atomic::write_bytes(file, runs.export()?.as_bytes())?;
        println!("wrote {}", file.display());
        return Ok(());
    }
    let server = Server::bind(at(args.port), None, Vec::new())?;
    println!("watch at {}", server.url());
    let signals = Signals::listen()?;
    Ok(server.run(router(runs), || signals.came().is_some())?)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A page that is served as long as this is held.
pub struct Watched {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    /// A page of a run that is about to begin; at any port, if the usual one is taken.
    pub fn beside(folder: &Path) -> Result<Self> {
        atomic::create_folder(folder)?;
        let runs = Runs::new(&[folder.to_owned()])?;
        let server =
            Server::bind(at(PORT), None, Vec::new()).or_else(|_| Server::bind(at(0), None, Vec::new()))?;
        println!("watch at {}", server.url());
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        // A page that cannot be served ends no run.
        let serve = move || drop(server.run(router(runs), || asked.load(Ordering::Relaxed)));
        let thread = std::thread::Builder::new().name("watch".into()).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
