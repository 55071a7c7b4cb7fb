//! Which files a revision has.

use std::io::Read;

use serde::Deserialize;

use crate::HubError;
use crate::client::{About, Ask, Client, Fault};
use crate::event::OnEvent;
use crate::names::{RepoId, Revision, file_path, is_commit};

/// The longest listing that is read: a million files.
const LONGEST: u64 = 256 << 20;

/// A revision, as the hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks the hub. Every name that comes back is a path inside the repository.
pub(crate) fn listing(
    client: &Client,
    repo: &RepoId,
    revision: &Revision,
    on_event: &mut OnEvent<'_>,
) -> Result<Listing, HubError> {
    let url = client.endpoint.listing(repo, revision.as_str());
    let about = About { repo, revision: revision.as_str(), file: None };
    let text = client.retrying(&url, on_event, |_| {
        let response = client.ask(Ask::Contents { from: 0 }, &url, about)?;
        let mut text = Vec::new();
        let read = client.body(response).take(LONGEST + 1).read_to_end(&mut text);
        let n_bytes = text.len() as u64;
        read.map_err(|reason| Fault::Passing { reason, after: None, n_bytes })?;
        if n_bytes > LONGEST {
            return Err(client.answer(&url, "with too long a list", "at most 256 MiB of file names").into());
        }
        Ok(text)
    })?;
    let complain = |found: String, wanted: &str| client.answer(&url, &found, wanted);
    let answer: Answer = serde_json::from_slice(&text)
        .map_err(|error| complain(format!("something else ({error})"), "JSON with `sha` and `siblings`"))?;
    if !is_commit(&answer.sha) {
        return Err(complain(format!("commit {:?}", answer.sha), "40 hexadecimal digits"));
    }
    let files: Vec<String> = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    for name in &files {
        if let Err(HubError::Name { wanted, .. }) = file_path(name) {
            return Err(complain(format!("with a file named {name:?}"), wanted));
        }
    }
    Ok(Listing { commit: answer.sha, files })
}
