//! `tastemaker watch`: runs as they go, on a page.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_store::atomic;
use tastemaker_web::server::Server;
use tastemaker_web::watch::{Runs, router};

use crate::place::{OverwriteFlag, Place};
use crate::signals::Signals;

/// Shows runs as they go: curves with alarms, validation images, plans and logs. Runs are only read, also those of other
/// processes; several lie over each other.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct WatchArgs {
    /// Output folders of training runs, running or finished
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Port of this machine to listen on
    #[arg(long, value_name = "PORT", default_value_t = 7009)]
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
        let _claim = Place::file(file, "--export").claim(args.overwrite)?;
        atomic::write_bytes(file, runs.export()?.as_bytes())?;
        println!("wrote {}", file.display());
        return Ok(());
    }
    let server = Server::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port), None, Vec::new())?;
    println!("watch at {}", server.url());
    let signals = Signals::listen()?;
    Ok(server.run(router(runs), || signals.came().is_some())?)
}
