//! From a name to a snapshot in the cache.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::cache::{Cache, Snapshot};
use super::client::{About, Client, Metadata, Retry, Tell};
use super::download::{Place, download};
use super::listing::listing;
use super::names::{RepoId, Revision, file_path};
use super::place::link;
use super::select::Selection;
use super::token::Token;
use crate::{StoreError, atomic};

/// How to reach a hub.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it answers: `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// What opens gated and private repositories. Only the endpoint itself ever sees it.
    pub token: Option<Token>,
    /// Whether to make do with what is in the cache, and open no connection.
    pub offline: bool,
    /// How patiently to try again.
    pub retry: Retry,
    /// Whether connections go through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
    pub proxy_from_environment: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            token: None,
            offline: false,
            retry: Retry::default(),
            proxy_from_environment: false,
        }
    }
}

/// A hub to fetch from.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    offline: bool,
}

impl Hub {
    /// Checks the settings. Opens no connection.
    ///
    /// # Errors
    /// [`StoreError::Name`] for an endpoint that is no web address.
    pub fn new(settings: &Settings) -> Result<Self, StoreError> {
        Ok(Self { client: Client::new(settings)?, offline: settings.offline })
    }
}

/// What happens while fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is known what to do.
    Planned {
        /// Files picked.
        n_files: usize,
        /// Those already in the cache.
        n_cached: usize,
        /// Size of the others together, `None` if the hub does not say.
        bytes: Option<u64>,
    },
    /// A file begins.
    Begin {
        /// Its name in the repository.
        name: &'a str,
        /// Its size.
        bytes: Option<u64>,
    },
    /// So much of a file is there; less than before where a server does not resume.
    At {
        /// Its name.
        name: &'a str,
        /// How much.
        bytes: u64,
    },
    /// Another process is fetching the file.
    Waiting {
        /// Its name.
        name: &'a str,
    },
    /// An attempt failed, and another follows.
    Retrying {
        /// How it failed.
        reason: &'a str,
        /// The time until then.
        wait: Duration,
    },
    /// A file is there, verified.
    Done {
        /// Its name.
        name: &'a str,
    },
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where the files are.
    pub snapshot: Snapshot,
    /// Files picked; zero when offline, where nothing says which there are.
    pub n_files: usize,
    /// Bytes that came over the wire.
    pub n_bytes: u64,
}

/// A file that is not in the cache yet.
struct Missing<'a> {
    name: &'a str,
    pointer: PathBuf,
    metadata: Metadata,
}

/// Brings the picked files of a revision into the cache. The reference to the commit is written last, so that a fetch
/// that was interrupted does not look like one that was not.
///
/// # Errors
/// [`StoreError::Refused`], [`StoreError::NotOnHub`], [`StoreError::Connection`], [`StoreError::Damaged`] and
/// [`StoreError::Answer`] for what a hub does; [`StoreError::NotCached`] when offline; [`StoreError::DiskFull`] and
/// [`StoreError::Io`] for the disk.
pub fn fetch(
    hub: &Hub,
    cache: &Cache,
    repo: &RepoId,
    revision: &Revision,
    selection: &Selection,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Fetched, StoreError> {
    if hub.offline {
        let advice = "offline mode is on: fetch it while there is a connection";
        let snapshot = cache.require(repo, revision, advice)?;
        return Ok(Fetched { snapshot, n_files: 0, n_bytes: 0 });
    }
    let client = &hub.client;
    let listing = listing(client, repo, revision, tell)?;
    let names: Vec<&str> = listing.files.iter().map(String::as_str).collect();
    let picked = selection.pick(&names).map_err(|wanted| {
        let url = client.endpoint.listing(repo, revision.as_str());
        client.answer(&url, &format!("a list of {} files", names.len()), &wanted)
    })?;

    let folder = cache.snapshot_folder(repo, &listing.commit);
    let missing = missing(client, repo, &listing.commit, &folder, &picked, tell)?;
    tell(Event::Planned {
        n_files: picked.len(),
        n_cached: picked.len() - missing.len(),
        bytes: missing.iter().map(|file| file.metadata.size).sum(),
    });
    let mut n_bytes = 0;
    for Missing { name, pointer, metadata } in &missing {
        tell(Event::Begin { name, bytes: metadata.size });
        let (blob, lock) = (cache.blob(repo, &metadata.blob), cache.lock(repo, &metadata.blob));
        let about = About { repo, revision: &listing.commit, file: Some(name) };
        n_bytes += download(client, about, metadata, Place { blob: &blob, lock: &lock }, tell)?;
        link(&cache.repo_folder(repo), pointer, &blob)?;
        tell(Event::Done { name });
    }
    if !revision.is_commit() {
        refer(cache, repo, revision, &listing.commit)?;
    }
    Ok(Fetched { snapshot: Snapshot::new(listing.commit, folder), n_files: picked.len(), n_bytes })
}

fn missing<'a>(
    client: &Client,
    repo: &RepoId,
    commit: &str,
    folder: &std::path::Path,
    picked: &[&'a str],
    tell: &mut Tell<'_>,
) -> Result<Vec<Missing<'a>>, StoreError> {
    let mut missing = Vec::new();
    for name in picked {
        let pointer = folder.join(file_path(name)?);
        // A commit never changes, so what is there needs no question.
        if !pointer.is_file() {
            let metadata = client.metadata(About { repo, revision: commit, file: Some(name) }, tell)?;
            missing.push(Missing { name, pointer, metadata });
        }
    }
    Ok(missing)
}

fn refer(cache: &Cache, repo: &RepoId, revision: &Revision, commit: &str) -> Result<(), StoreError> {
    let path = cache.reference(repo, revision);
    if fs::read_to_string(&path).is_ok_and(|found| found == commit) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), atomic::create_folder)?;
    atomic::write_bytes(&path, commit.as_bytes())
}
