//! Fetching from the Hub, as `model fetch` and `data fetch` do it.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tastemaker_hub::{Event, Hub, RepoId, Revision, Selection};

use crate::hub::{cache, settings};
use crate::progress::mebibytes;

/// Brings the picked files of a repository into the cache, and prints their folder.
pub fn fetch(repo: &RepoId, revision: &str, cache_dir: Option<&Path>, selection: &Selection) -> Result<()> {
    let revision = Revision::new(revision)?;
    let cache = cache(cache_dir)?;
    let hub = Hub::new(&settings()?)?;
    let mut progress = FetchProgress::new();
    let outcome = tastemaker_hub::fetch(&hub, &cache, repo, &revision, selection, &mut |event| {
        progress.on_event(event)
    });
    progress.end();
    println!("{}", outcome?.snapshot.folder().display());
    Ok(())
}

/// Bytes of all files as one bar on a terminal, a line per file elsewhere; on standard error.
struct FetchProgress {
    on_terminal: bool,
    bar: Option<ProgressBar>,
    /// Bytes of the files before this one.
    bytes_before: u64,
    /// Bytes of this one.
    bytes_at: u64,
}

impl FetchProgress {
    fn new() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { on_terminal, bar: None, bytes_before: 0, bytes_at: 0 }
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { n_files, n_cached, bytes } => {
                let n_new = n_files - n_cached;
                if n_new == 0 {
                    self.line(&format!("all {n_files} files are in the cache"));
                    return;
                }
                let size = bytes.map_or_else(String::new, |bytes| format!(", {}", mebibytes(bytes)));
                self.line(&format!("fetching {n_new} of {n_files} files{size}"));
                if self.on_terminal {
                    self.bar = Some(bar(bytes));
                }
            }
            Event::Begin { name, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(name.to_owned());
                }
            }
            Event::At { bytes, .. } => {
                self.bytes_at = bytes;
                if let Some(bar) = &self.bar {
                    bar.set_position(self.bytes_before + bytes);
                }
            }
            Event::Waiting { name } => self.line(&format!("waiting for another process that fetches {name}")),
            Event::Retrying { reason, wait } => {
                self.line(&format!("trying again in {:.0} s: {reason}", wait.as_secs_f64()));
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

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {msg}")
        }
        None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec}  {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
