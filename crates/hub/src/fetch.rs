//! From a name to a snapshot in the cache.

use std::fs;
use std::path::PathBuf;

use crate::cache::{Cache, Snapshot};
use crate::client::{About, Client, Metadata};
use crate::download::{Place, download};
use crate::event::{Event, OnEvent};
use crate::link::link;
use crate::listing::listing;
use crate::mark::{Asked, Mark};
use crate::names::{RepoId, Revision, file_path};
use crate::select::Selection;
use crate::settings::Settings;
use tastemaker_store::atomic;

use crate::HubError;

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
    /// [`HubError::Name`] for an endpoint that is no web address.
    pub fn new(settings: &Settings) -> Result<Self, HubError> {
        Ok(Self { client: Client::new(settings)?, offline: settings.offline })
    }
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

/// Brings the picked files of a revision into the cache. The reference to the commit is written last, and a mark says from the
/// first file to the last that some are missing, so that a fetch that was interrupted does not look like one that was not.
///
/// # Errors
/// [`HubError::Refused`], [`HubError::NotOnHub`], [`HubError::Connection`], [`HubError::Damaged`] and
/// [`HubError::Answer`] for what a hub does; [`HubError::NotCached`] when offline; [`HubError::DiskFull`] and
/// [`StoreError::Io`](tastemaker_store::StoreError::Io) for the disk.
pub fn fetch(
    hub: &Hub,
    cache: &Cache,
    repo: &RepoId,
    revision: &Revision,
    selection: &Selection,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Fetched, HubError> {
    if hub.offline {
        let hint = "offline mode is on: fetch it while there is a connection";
        let snapshot = cache.require(repo, revision, hint)?;
        return Ok(Fetched { snapshot, n_files: 0, n_bytes: 0 });
    }
    let client = &hub.client;
    let listing = listing(client, repo, revision, on_event)?;
    let names: Vec<&str> = listing.files.iter().map(String::as_str).collect();
    let picked = selection.pick(&names).map_err(|wanted| {
        let url = client.endpoint.listing(repo, revision.as_str());
        client.answer(&url, &format!("a list of {} files", names.len()), &wanted)
    })?;

    let folder = cache.snapshot_folder(repo, &listing.commit);
    let asked = Asked::new(selection, &picked);
    let mark = cache.mark(repo, &listing.commit);
    if asked.n_missing(&folder) > 0 {
        Mark::read(&mark).begin(asked.clone()).write(&mark)?;
    }
    let missing = missing(client, repo, &listing.commit, &folder, &picked, on_event)?;
    on_event(Event::Planned {
        n_files: picked.len(),
        n_cached: picked.len() - missing.len(),
        bytes: missing.iter().map(|file| file.metadata.size).sum(),
    });
    let mut n_bytes = 0;
    for Missing { name, pointer, metadata } in &missing {
        on_event(Event::Begin { name, bytes: metadata.size });
        let (blob, lock) = (cache.blob(repo, &metadata.blob), cache.lock(repo, &metadata.blob));
        let about = About { repo, revision: &listing.commit, file: Some(name) };
        n_bytes += download(client, about, metadata, Place { blob: &blob, lock: &lock }, on_event)?;
        link(&cache.repo_folder(repo), pointer, &blob)?;
        on_event(Event::Done { name });
    }
    Mark::read(&mark).end(asked, &folder).write(&mark)?;
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
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<Missing<'a>>, HubError> {
    let mut missing = Vec::new();
    for name in picked {
        let pointer = folder.join(file_path(name)?);
        // A commit never changes, so what is there needs no question.
        if !pointer.is_file() {
            let metadata = client.metadata(About { repo, revision: commit, file: Some(name) }, on_event)?;
            missing.push(Missing { name, pointer, metadata });
        }
    }
    Ok(missing)
}

fn refer(cache: &Cache, repo: &RepoId, revision: &Revision, commit: &str) -> Result<(), HubError> {
    let path = cache.reference(repo, revision);
    if fs::read_to_string(&path).is_ok_and(|found| found == commit) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), atomic::create_folder)?;
    Ok(atomic::write_bytes(&path, commit.as_bytes())?)
}
