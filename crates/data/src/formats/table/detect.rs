//! Finding out what columns mean from rows that each name their own.

use std::path::Path;

use super::{Layout, Row, Scores, Shape, TableReader};
use crate::DataError;
use crate::formats::OpenSettings;
use crate::formats::refusal::Refusal;

/// A row that names its columns.
pub trait NamedRow: Row {
    /// Names of its columns.
    fn columns(&self) -> Vec<String>;

    /// Whether it has a column that is no image.
    fn has(&self, column: &str) -> bool;
}

/// The layout of rows that need not all have all columns: that of the first row that follows a convention, with whatever
/// column a later row shows to be there too.
#[derive(Debug)]
pub struct Detect<'a> {
    settings: &'a OpenSettings,
    path: &'a Path,
    layout: Option<Layout>,
    unknown: Option<DataError>,
}

impl<'a> Detect<'a> {
    /// For the table at `path`.
    pub fn new(settings: &'a OpenSettings, path: &'a Path) -> Self {
        Self { settings, path, layout: None, unknown: None }
    }

    /// Adds a row to a table, or skips it: as long as no row followed a convention, too.
    ///
    /// # Errors
    /// [`DataError`] if the set cannot be read.
    pub fn add(
        &mut self,
        table: &mut TableReader,
        row: Result<impl NamedRow, Refusal>,
    ) -> Result<(), DataError> {
        match row.and_then(|row| Ok((self.layout_of(&row).map_err(Refusal::bad_row)?, row))) {
            Ok((layout, row)) => table.row(layout, &row),
            Err(refusal) => table.refuse(refusal),
        }
    }

    fn layout_of(&mut self, row: &impl NamedRow) -> Result<&Layout, String> {
        let is_liked = |layout: &Layout| matches!(layout.shape, Shape::Liked { .. });
        if self.layout.as_ref().is_some_and(is_liked)
            && Layout::of(&row.columns(), self.settings, self.path).is_ok_and(|own| !is_liked(&own))
        {
            return Err(
                "it says how good it is, and rows before it do not: give each row a label, or none".into()
            );
        }
        if self.layout.as_ref().is_none_or(|layout| layout.caption.is_none()) {
            match Layout::of(&row.columns(), self.settings, self.path) {
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
        if let Some(layout) = &mut self.layout {
            if layout.scores.is_none() {
                layout.scores = Scores::detected(&layout.shape, |column| row.has(column));
            }
            layout.has_originals |= Layout::detects_originals(&layout.shape, |column| row.has(column));
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
