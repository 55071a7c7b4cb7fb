//! `tastemaker curate`: a page to walk through a set of pairs and say what is wrong with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tastemaker_data::PairSource;
use tastemaker_web::curate::{Desk, Findings, read_findings, read_margins, router};
use tastemaker_web::server::Server;

use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::progress::counted;
use crate::signals::Signals;

/// Shows a set of pairs to keep, exclude, swap or edit, one by one. The set is never changed: decisions go to a list, which `train`,
/// `accuracy`, `data check` and `data convert` take as --exclude.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CurateArgs {
    /// Pairs: a folder or file in any layout of docs/guide/data.md, its URL, or the name of a fetched dataset
    set: String,
    /// The list that decisions go to; an existing one is continued
    #[arg(long, value_name = "FILE", default_value = "curated.jsonl")]
    list: PathBuf,
    /// What data check found, or on which pairs scorers of data relabel disagree: check.jsonl, or the folder with it; then pairs can
    /// be chosen by it. Repeat for several [default: none]
    #[arg(long, value_name = "FILE|DIR")]
    check: Vec<PathBuf>,
    /// What score says of the set's images, in JSON lines; then pairs can be ordered by it. Repeat for several [default: none]
    #[arg(long, value_name = "FILE")]
    scores: Vec<PathBuf>,
    /// Port of this machine to listen on
    #[arg(long, value_name = "PORT", default_value_t = 7008)]
    port: u16,
    #[command(flatten)]
    reading: ReadingFlags,
}

/// Runs the command.
pub fn curate(args: &CurateArgs) -> Result<()> {
    let set = pairs::open(&args.set, Part::default(), &args.reading.settings()?)?;
    pairs::report_skipped(&set);
    let mut findings = Findings::new();
    for path in &args.check {
        for (row, found) in read_findings(path, &set)? {
            findings.entry(row).or_default().extend(found);
        }
    }
    let margins =
        args.scores.iter().map(|path| read_margins(path, &set)).collect::<Result<Vec<_>, _>>()?.concat();
    let n = set.len() as u64;
    let server = Server::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port), None, Vec::new())?;
    let desk = Desk::open(set, Path::new(&args.set), &args.list, findings)?.with_margins(margins);
    println!("{}: {}", args.set, counted(n, "pair"));
    println!("curate at {}", server.url());
    println!("every decision is on disk at once; Ctrl-C ends, and the same command continues");
    let signals = Signals::listen()?;
    server.run(router(desk), || signals.came().is_some())?;
    let list = next::word(&args.list);
    println!("decisions are in {list}");
    next::say_train(&args.set, "diffusion-dpo", &["--exclude", &list]);
    Ok(())
}
