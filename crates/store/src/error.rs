//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a file or a hub: which one, what was found, what was wanted.
///
/// The operating system's or the parser's own words are in [`source`](std::error::Error::source), so print
/// the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder is not there.
    #[error("{} does not exist; wanted {wanted}", .path.display())]
    Missing {
        /// The path that was looked for.
        path: PathBuf,
        /// What it should have been.
        wanted: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The verb: `read`, `write`, `create`, `rename`, `sync`, `lock`, `link`, `remove`.
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
    /// A text file holds bytes that are not UTF-8.
    #[error("{} is not UTF-8 at byte {offset}; save it as UTF-8", .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that does not fit.
        offset: usize,
    },
    /// A JSON file does not parse, or does not have the expected fields.
    #[error("{} does not hold the expected JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's complaint, with line and column.
        source: serde_json::Error,
    },
    /// A file is there and readable but does not say what its format must.
    #[error("{} is malformed: found {found}; wanted {wanted}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What the format demands.
        wanted: String,
    },
    /// A name that a hub would not give out, or that would lead out of the cache.
    #[error("{what} {found:?} is not usable; wanted {wanted}")]
    Name {
        /// What it names: `repository`, `revision`, `file name`, ...
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
    #[error("{repo} at revision {revision} is not in the cache {}; {advice}", .cache.display())]
    NotCached {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
        /// What to do.
        advice: String,
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
}

fn refused(with_token: bool) -> &'static str {
    if with_token {
        "the token that was sent does not open it: check the name, and accept its license on that page with the \
         token's account"
    } else {
        "it is gated, private or not there: check the name, accept its license on that page, and set HF_TOKEN"
    }
}

impl StoreError {
    /// Wraps an [`io::Error`], telling "not there" from the other reasons.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if action == "read" && source.kind() == io::ErrorKind::NotFound {
            return Self::Missing { path: path.to_path_buf(), wanted: "a readable file".into() };
        }
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// The file contradicts its format.
    pub fn malformed(path: &Path, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), found: found.into(), wanted: wanted.into() }
    }

    /// The file or folder concerned; `None` where a hub or a name is.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Missing { path, .. }
            | Self::Io { path, .. }
            | Self::NotUtf8 { path, .. }
            | Self::Json { path, .. }
            | Self::Malformed { path, .. }
            | Self::DiskFull { path, .. } => Some(path),
            Self::NotCached { cache, .. } => Some(cache),
            Self::Name { .. }
            | Self::Refused { .. }
            | Self::NotOnHub { .. }
            | Self::Damaged { .. }
            | Self::Answer { .. }
            | Self::Connection { .. }
            | Self::Denied { .. }
            | Self::Unreachable { .. }
            | Self::Changed { .. } => None,
        }
    }
}
