//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

use tastemaker_data::DataError;
use tastemaker_store::StoreError;

/// What went wrong with a study, its database or its server.
///
/// Underlying reasons are in [`source`](std::error::Error::source), so print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Pairs could not be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The database refuses.
    #[error("the database {} cannot be used", .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The database is of another study, or another process has it.
    #[error("{}: {what}", .path.display())]
    OtherStudy {
        /// The file.
        path: PathBuf,
        /// What was found, what was wanted, what to do.
        what: String,
    },
    /// What people are to vote on cannot be voted on.
    #[error("{0}")]
    Study(String),
    /// How people are to vote makes no sense.
    #[error("{0}")]
    Settings(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; choose another address or port")]
    Bind {
        /// The address.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// A certificate or its key cannot be used.
    #[error("{} cannot be used: {what}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system refuses random numbers or threads.
    #[error("the system refuses")]
    System(#[from] io::Error),
}
