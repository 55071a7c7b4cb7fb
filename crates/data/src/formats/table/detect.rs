//! Finding out what columns mean from rows that each name their own.

use std::path::Path;

use super::{Layout, Scores};
use crate::DataError;
use crate::formats::Columns;

/// The layout of rows that need not all have all columns: that of the first row that follows a convention, with whatever
/// column a later row shows to be there too.
#[derive(Debug)]
pub struct Detect<'a> {
    typed: &'a Columns,
    path: &'a Path,
    layout: Option<Layout>,
    unknown: Option<DataError>,
}

impl<'a> Detect<'a> {
    /// For the table at `path`.
    pub fn new(typed: &'a Columns, path: &'a Path) -> Self {
        Self { typed, path, layout: None, unknown: None }
    }

    /// The layout, given the columns of a row, and whether a column is among them.
    ///
    /// # Errors
    /// What is missing, for a row that is skipped, as long as no row followed a convention.
    pub fn with(
        &mut self,
        columns: impl FnOnce() -> Vec<String>,
        has: impl Fn(&str) -> bool,
    ) -> Result<&Layout, String> {
        let is_complete = |layout: &Layout| layout.caption.is_some();
        if !self.layout.as_ref().is_some_and(is_complete) {
            match Layout::of(&columns(), self.typed, self.path) {
                Ok(layout) if self.layout.as_ref().is_none_or(|known| known.shape == layout.shape) => {
                    self.layout = Some(layout);
                }
                Ok(_) => {}
                Err(error) => {
                    if self.layout.is_none() {
                        let problem = error.to_string();
                        self.unknown.get_or_insert(error);
                        return Err(problem);
                    }
                }
            }
        }
        if let Some(layout) = &mut self.layout
            && layout.scores.is_none()
        {
            layout.scores = Scores::detected(&layout.shape, has);
        }
        self.layout.as_ref().ok_or_else(String::new)
    }

    /// Why no row at all followed a convention.
    ///
    /// # Errors
    /// [`DataError::Columns`] of the first row.
    pub fn finish(self) -> Result<(), DataError> {
        match (self.layout, self.unknown) {
            (None, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
