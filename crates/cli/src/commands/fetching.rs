//! Fetching from the Hub, as `model fetch` and `data fetch` do it.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;
use tastemaker_hub::{Event, Hub, RepoId, RepoKind, Revision, Selection, Verified};

use crate::hub::{cache, settings};
use crate::next;
use crate::progress::{Work, counted, mebibytes};

/// Brings the picked files of a repository into the cache, and prints their folder.
pub fn fetch(repo: &RepoId, revision: &str, cache_dir: Option<&Path>, selection: &Selection) -> Result<()> {
    let revision = Revision::new(revision)?;
    let cache = cache(cache_dir)?;
    let hub = Hub::new(&settings()?)?;
    let mut progress = FetchProgress::new();
    let outcome = tastemaker_hub::fetch(&hub, &cache, repo, &revision, selection, &mut |event| {
        progress.on_event(event)
    });
    progress.work.end();
    println!("{}", outcome?.snapshot.folder().display());
    let name = repo.name();
    match (repo.kind(), selection) {
        (RepoKind::Dataset, _) => next::say(&["tastemaker", "data", "check", name]),
        (RepoKind::Model, Selection::Pipeline { .. }) => {
            next::say(&["tastemaker", "sample", "--model", name, "--prompt", "a fox", "--out", "images"]);
        }
        (RepoKind::Model, _) => {}
    }
    Ok(())
}

/// Compares all fetched files of a repository with their checksums, without the network.
pub fn verify(repo: &RepoId, revision: &str, cache_dir: Option<&Path>) -> Result<()> {
    let revision = Revision::new(revision)?;
    let command = if repo.kind() == RepoKind::Dataset { "data" } else { "model" };
    let hint = format!("run `tastemaker {command} fetch {}`", repo.name());
    let snapshot = cache(cache_dir)?.require(repo, &revision, &hint)?;
    let mut work = Work::of_bytes("comparing");
    let verified = snapshot.verify(|done, all| work.at(done, all));
    work.end();
    let Verified { n_files, bytes, n_without } = verified?;
    let without = match n_without {
        0 => String::new(),
        n => format!("; {} without a checksum", counted(n as u64, "file")),
    };
    let files = counted(n_files as u64, "file");
    println!(
        "{}: {files} in {}, all checksums match{without}",
        snapshot.folder().display(),
        mebibytes(bytes)
    );
    Ok(())
}

/// Bytes of all files, on standard error.
struct FetchProgress {
    work: Work,
    on_terminal: bool,
    /// Bytes of all files, where they are known.
    all: Option<u64>,
    /// Bytes of the files before this one.
    bytes_before: u64,
    /// Bytes of this one.
    bytes_at: u64,
}

impl FetchProgress {
    fn new() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { work: Work::of_bytes("fetching"), on_terminal, all: None, bytes_before: 0, bytes_at: 0 }
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { n_files, n_cached, bytes } => {
                let n_new = n_files - n_cached;
                if n_new == 0 {
                    self.work.note(&format!("all {} are in the cache", counted(n_files as u64, "file")));
                    return;
                }
                let size = bytes.map_or_else(String::new, |bytes| format!(", {}", mebibytes(bytes)));
                self.work.note(&format!("fetching {n_new} of {}{size}", counted(n_files as u64, "file")));
                self.all = bytes;
            }
            Event::Begin { name, .. } => self.work.on(name),
            Event::At { bytes, .. } => {
                self.bytes_at = bytes;
                let done = self.bytes_before + bytes;
                self.work.at(done, self.all.unwrap_or(done));
            }
            Event::Waiting { name } => {
                self.work.note(&format!("waiting for another process that fetches {name}"));
            }
            Event::Retrying { reason, wait } => {
                self.work.note(&format!("trying again in {:.0} s: {reason}", wait.as_secs_f64()));
            }
            Event::Done { name } => {
                self.bytes_before += std::mem::take(&mut self.bytes_at);
                if !self.on_terminal {
                    eprintln!("{name}");
                }
            }
            _ => {}
        }
    }
}
