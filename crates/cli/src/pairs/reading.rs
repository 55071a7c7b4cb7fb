//! How to read a set of pairs.

use std::collections::BTreeMap;

use clap::Args;
use tastemaker_data::formats::{Columns, OpenSettings};
use tastemaker_math::nearest::{did_you_mean, nearest};

use crate::exit::UsageError;

/// How to read a set of pairs.
#[derive(Debug, Default, Clone, Args)]
pub struct ReadingFlags {
    /// The layout of the pairs: jsonl, parquet, webdataset, folders, onetrainer, json, csv [default: detected]
    #[arg(long, value_name = "NAME")]
    pub format: Option<String>,
    /// Which columns hold what: image_0, image_1, label_0, label_1, winner, loser, score_0, score_1, ps_score_0, ps_score_1,
    /// soft_label, probability_0, caption; separated by commas [default: detected by their names]
    #[arg(long, value_name = "KEY=COLUMN", value_delimiter = ',', value_parser = pair)]
    pub columns: Vec<(String, String)>,
}

impl ReadingFlags {
    /// As readers take it.
    ///
    /// # Errors
    /// As [`open_settings`].
    pub fn settings(&self) -> Result<OpenSettings, UsageError> {
        open_settings(self.format.clone(), &self.columns.iter().cloned().collect())
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

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, name) = text.split_once('=').ok_or("wanted KEY=COLUMN")?;
    Ok((key.trim().to_owned(), name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
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
