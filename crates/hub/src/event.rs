//! What happens while fetching.

use std::time::Duration;

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

/// Whoever shows the progress.
pub(crate) type OnEvent<'t> = dyn FnMut(Event<'_>) + 't;
