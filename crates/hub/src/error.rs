//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

use tastemaker_store::StoreError;

/// What went wrong with a hub, its cache or a storage elsewhere: what was found, what was wanted, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that a hub would not give out, or that would lead out of the cache; an address that is none.
    #[error("{what} {found:?} is not usable; wanted {wanted}")]
    Name {
        /// What it names: `repository`, `revision`, `address`, ...
        what: &'static str,
        /// The name.
        found: String,
        /// The rule it breaks.
        wanted: &'static str,
    },
    /// A hub answers 401 or 403.
    #[error("{page} refuses access (status {status}); {}", refused(*.with_token))]
    Refused {
        /// The page of the repository, where a license can be accepted.
        page: String,
        /// The status.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// A hub answers 404.
    #[error("{server} has no {what}; check the name")]
    NotOnHub {
        /// The server.
        server: String,
        /// What was asked for: a repository, a revision of it, or a file of that.
        what: String,
    },
    /// A repository is not in the cache, and nothing was allowed to fetch it.
    #[error("{repo} at revision {revision} is not in the cache {}; {hint}", .cache.display())]
    NotCached {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
        /// What to do.
        hint: String,
    },
    /// Fetching a repository was interrupted.
    #[error(
        "fetching {what} of {repo} was interrupted: {n_missing} of its {n_files} files are not in the cache {}; give the \
         command again, which goes on where it stopped",
        .cache.display()
    )]
    Incomplete {
        /// The repository.
        repo: String,
        /// What was asked for, in words.
        what: String,
        /// Files that are missing.
        n_missing: usize,
        /// Files that were picked.
        n_files: usize,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// What was downloaded is not what the hub announced.
    #[error("{url} is damaged: found {found}; wanted {wanted}; nothing of it was kept, so fetch again")]
    Damaged {
        /// Where it came from.
        url: String,
        /// Its checksum or size.
        found: String,
        /// The checksum or size announced.
        wanted: String,
    },
    /// A fetched file is not what was fetched any more.
    #[error(
        "{} is damaged: its contents have {found}, and it is named after another; remove {} and fetch it again",
        .path.display(), .blob.display()
    )]
    DamagedBlob {
        /// Its name in the repository.
        path: PathBuf,
        /// Where its contents are.
        blob: PathBuf,
        /// Their checksum.
        found: String,
    },
    /// A hub answers something that makes no sense.
    #[error("{url} answers {found}; wanted {wanted}")]
    Answer {
        /// What was asked.
        url: String,
        /// The answer.
        found: String,
        /// What would have made sense.
        wanted: String,
    },
    /// A hub cannot be reached, or connections to it keep being cut.
    #[error(
        "no whole answer from {url} in {attempts} attempts; check the connection and fetch again, which \
         goes on where this stopped"
    )]
    Connection {
        /// What was asked.
        url: String,
        /// How often in a row.
        attempts: u32,
        /// How the last attempt ended.
        source: io::Error,
    },
    /// Object storage or a web server refuses to show something.
    #[error(
        "{url} refuses access ({found}); check the name, and the credentials in AWS_*, GOOGLE_* or AZURE_* variables; web \
         servers are read without any"
    )]
    Denied {
        /// What was asked for.
        url: String,
        /// What it refused with.
        found: String,
    },
    /// Object storage or a web server cannot be reached, or connections to it keep being cut.
    #[error("no whole answer from {url}; check the connection and try again")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// How the last attempt ended.
        source: io::Error,
    },
    /// A file elsewhere is not the one it was when reading began.
    #[error("{url} changed while it was read, so nothing of it can be used; start again once it is whole")]
    Changed {
        /// The file.
        url: String,
    },
    /// The disk is full.
    #[error(
        "no space is left for {}; wanted {wanted_bytes} more bytes: make room, or choose a folder on another disk",
        .path.display()
    )]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// How much of it is missing.
        wanted_bytes: u64,
        /// The system's words.
        source: io::Error,
    },
    /// Reading or writing a file on this machine; a file elsewhere that is missing or malformed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<HubError> for StoreError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Store(error) => error,
            error => Self::Remote(Box::new(error)),
        }
    }
}

fn refused(with_token: bool) -> &'static str {
    if with_token {
        "the token that was sent does not open it: check the name, and accept its license on that page with the \
         token's account"
    } else {
        "it is gated, private or not there: check the name, accept its license on that page, and set HF_TOKEN"
    }
}
