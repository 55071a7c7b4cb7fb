//! Why a row does not become a pair.

use tastemaker_store::StoreError;

use crate::{DataError, Reason};

/// Why a row is skipped, and what was found in it.
pub type Skip = (Reason, String);

/// What ends the reading of a row.
#[derive(Debug)]
pub enum Refusal {
    /// The row is no pair, and is skipped.
    Row(Skip),
    /// The set cannot be read.
    Set(DataError),
}

impl Refusal {
    /// A row that does not say what it must.
    pub fn bad_row(found: impl Into<String>) -> Self {
        Self::Row((Reason::BadRow, found.into()))
    }

    /// What an error means for the row in which it came up.
    pub fn of_row(error: DataError) -> Self {
        match error.skips() {
            Some(problem) => Self::Row((Reason::BadRow, problem)),
            None => Self::Set(error),
        }
    }

    /// Why the row is skipped.
    ///
    /// # Errors
    /// [`DataError`] if the set cannot be read.
    pub fn skip(self) -> Result<Skip, DataError> {
        match self {
            Self::Row(skip) => Ok(skip),
            Self::Set(error) => Err(error),
        }
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        Self::Set(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Set(error.into())
    }
}
