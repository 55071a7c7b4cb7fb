//! How to read a set of pairs.

use std::collections::BTreeMap;

use tastemaker_data::formats::{Columns, OpenSettings};
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_run::{DataSection, Key, keys};

use crate::commands::settings::section_args;
use crate::exit::UsageError;

/// How to read a set of pairs.
#[derive(Debug, Default, Clone)]
pub struct ReadingFlags(DataSection);

section_args!(ReadingFlags, reading_keys);

fn reading_keys() -> impl Iterator<Item = &'static Key> {
    keys().filter(|key| ["data.format", "data.columns"].contains(&key.path))
}

impl ReadingFlags {
    /// As settings of a run.
    pub fn section(&self) -> DataSection {
        self.0.clone()
    }

    /// As readers take it.
    ///
    /// # Errors
    /// As [`open_settings`].
    pub fn settings(&self) -> Result<OpenSettings, UsageError> {
        open_settings(self.0.format.clone(), &self.0.columns.clone().unwrap_or_default())
    }
}

/// How to open a set, from a layout and names of columns.
///
/// # Errors
/// [`UsageError`] for a key that columns do not have.
pub fn open_settings(
    format: Option<String>,
    columns: &BTreeMap<String, String>,
) -> Result<OpenSettings, UsageError> {
    let mut settings = OpenSettings { format, ..OpenSettings::default() };
    for (key, name) in columns {
        let place = settings.columns.key(key).ok_or_else(|| {
            let meant = did_you_mean(nearest(key, Columns::KEYS.iter().copied()));
            UsageError(format!("columns have no {key:?}{meant}; wanted one of {}", Columns::KEYS.join(", ")))
        })?;
        *place = Some(name.clone());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    #[test]
    fn a_key_that_is_none_is_refused_with_the_nearest() {
        let columns = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        assert_eq!(open_settings(None, &columns("winner")).unwrap().columns.winner.as_deref(), Some("x"));
        let error = open_settings(None, &columns("captoin")).unwrap_err();
        assert!(
            error.to_string().starts_with("columns have no \"captoin\", did you mean \"caption\"?"),
            "{error}"
        );
    }

    #[test]
    fn the_help_names_every_layout() {
        let command = ReadingFlags::augment_args(clap::Command::new("x"));
        let help = command.get_arguments().map(|arg| arg.get_help().unwrap().to_string()).collect::<String>();
        for name in tastemaker_data::formats::FORMATS
            .iter()
            .map(|format| format.name)
            .chain(Columns::KEYS.iter().copied())
        {
            assert!(help.contains(name), "{name}");
        }
    }
}
