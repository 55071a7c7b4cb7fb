//! The one error type of this crate.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a file: which one, what was found, what was wanted.
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
    /// A name that is none, or that would lead elsewhere.
    #[error("{what} {found:?} is not usable; wanted {wanted}")]
    Name {
        /// What it names: `file name`, `list of files`, ...
        what: &'static str,
        /// The name.
        found: String,
        /// The rule it breaks.
        wanted: &'static str,
    },
    /// A file elsewhere could not be had; the network's own error says why.
    #[error(transparent)]
    Remote(Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// The error of this kind that another library was handed and hands back, by itself or as the reason of an [`io::Error`].
    ///
    /// # Errors
    /// The error itself where there is none of this kind in it.
    pub fn within(error: Box<dyn Error + Send + Sync>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match error.downcast::<Self>() {
            Ok(own) => Ok(*own),
            Err(error) => match error.downcast::<io::Error>() {
                Ok(error) => error.downcast::<Self>().map_err(Into::into),
                Err(error) => Err(error),
            },
        }
    }

    /// Wraps an [`io::Error`], telling "not there" from the other reasons. One that was an error of this kind before comes back as
    /// that.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let source = match source.downcast::<Self>() {
            Ok(own) => return own,
            Err(source) => source,
        };
        if action == "read" && source.kind() == io::ErrorKind::NotFound {
            return Self::Missing { path: path.to_path_buf(), wanted: "a readable file".into() };
        }
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// The file contradicts its format.
    pub fn malformed(path: &Path, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), found: found.into(), wanted: wanted.into() }
    }

    /// What is wrong with what a file says, without its path; `None` where it could not be read at all.
    pub fn damage(&self) -> Option<String> {
        match self {
            Self::NotUtf8 { offset, .. } => Some(format!("it is not UTF-8 at byte {offset}")),
            Self::Json { source, .. } => Some(format!("it is not the expected JSON: {source}")),
            Self::Malformed { found, wanted, .. } => Some(format!("found {found}; wanted {wanted}")),
            _ => None,
        }
    }

    /// The file or folder concerned; `None` where a name is, or something elsewhere.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Missing { path, .. }
            | Self::Io { path, .. }
            | Self::NotUtf8 { path, .. }
            | Self::Json { path, .. }
            | Self::Malformed { path, .. } => Some(path),
            Self::Name { .. } | Self::Remote(_) => None,
        }
    }
}

/// The error and its causes, outermost first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error with its causes, those skipped that the text before them already says.
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_went_through_other_hands_comes_back_as_what_it_was() {
        let own = || StoreError::Remote("cut off".into());
        let path = Path::new("x");
        let through_io = StoreError::io("read", path, io::Error::other(own()));
        assert!(matches!(through_io, StoreError::Remote(_)), "{through_io:?}");
        for boxed in [Box::new(own()) as Box<dyn Error + Send + Sync>, io::Error::other(own()).into()] {
            assert!(matches!(StoreError::within(boxed), Ok(StoreError::Remote(_))));
        }
        assert!(StoreError::within(io::Error::other("full").into()).is_err());
        let plain = StoreError::io("read", path, io::Error::other("full"));
        assert!(matches!(plain, StoreError::Io { .. }), "{plain:?}");
    }
}
