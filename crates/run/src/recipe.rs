//! What was typed: a TOML file and flags, every key optional, nothing filled in.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_store::json;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::settings::{
    AdapterSection, CheckpointSection, DataSection, LoggingSection, ModelSection, OptimizerSection,
    OutputSection, TrainSection, ValidationSection, keys,
};
use crate::{RunError, Warning};

/// `[method]`: the preference method and its own settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodSection {
    /// A name of [`OBJECTIVES`](tastemaker_math::objectives::OBJECTIVES). Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Everything else in the table; the method checks it.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// A recipe as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Folder for results. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<PathBuf>,
    /// In what this run is another than its source, for people who read it before the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
    /// What is aligned.
    pub model: ModelSection,
    /// What it is aligned to.
    pub data: DataSection,
    /// By which method.
    pub method: MethodSection,
    /// Which weights are trained.
    pub adapter: AdapterSection,
    /// Which optimizer, and its learning rate.
    pub optimizer: OptimizerSection,
    /// How long, how many pairs at once, in which precision.
    pub train: TrainSection,
    /// Validation during training.
    pub validation: ValidationSection,
    /// States to resume from.
    pub checkpoint: CheckpointSection,
    /// Where metrics go.
    pub logging: LoggingSection,
    /// What a full fine-tune writes.
    pub output: OutputSection,
    /// Names of earlier versions that were typed.
    #[serde(skip)]
    pub renamed: Vec<Warning>,
}

/// The longest recipe that is read, in bytes: the parser takes a hundred times as much memory, and people type none as long.
const MAX_BYTES: u64 = 1 << 20;

/// The longest reason that is shown, in characters.
const MAX_REASON: usize = 1000;

/// What flags say: a recipe that overrides the recipe.
pub type Overrides = Recipe;

impl Recipe {
    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`RunError::Store`] for a missing, unreadable or non-UTF-8 file, else as [`Recipe::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RunError> {
        let path = path.as_ref();
        Self::parse(path, &json::read_text_within(path, MAX_BYTES)?)
    }

    /// Parses a recipe; `path` is for errors.
    ///
    /// # Errors
    /// [`RunError::Recipe`] with the line and, for an unknown key, the nearest one.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RunError> {
        let at = |start: usize, message: String| RunError::Recipe {
            path: path.to_path_buf(),
            line: 1 + text[..start.min(text.len())].matches('\n').count(),
            message: message.chars().take(MAX_REASON).collect(),
        };
        let fail = |e: toml::de::Error| at(e.span().map_or(0, |span| span.start), explain(e.message()));
        let mut table = DeTable::parse(text).map_err(fail)?;
        let renamed = rename(table.get_mut()).map_err(|(start, message)| at(start, message))?;
        let recipe = Self::deserialize(Deserializer::from(table)).map_err(fail)?;
        Ok(Self { renamed, ..recipe })
    }

    /// The recipe with this folder in place of `~` at the beginning of places.
    #[must_use]
    pub fn at_home(self, home: &Path) -> Self {
        let (Ok(mut typed), Some(home)) = (serde_json::to_value(&self), home.to_str()) else { return self };
        for key in keys().filter(|key| key.is_place()) {
            let section =
                if key.section().is_empty() { Some(&mut typed) } else { typed.get_mut(key.section()) };
            if let Some(Value::String(place)) = section.and_then(|section| section.get_mut(key.name()))
                && let Some(rest) =
                    place.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
            {
                *place = format!("{home}{rest}");
            }
        }
        match serde_json::from_value(typed) {
            Ok(recipe) => Self { renamed: self.renamed, ..recipe },
            Err(_) => self,
        }
    }

    /// This recipe where it says something, the one below where it does not.
    ///
    /// Settings belong to their method: if this recipe names another method than the one below, only its own
    /// settings count.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            output_dir: self.output_dir.or(below.output_dir),
            differs: self.differs.or(below.differs),
            model: self.model.over(below.model),
            data: self.data.over(below.data),
            method: self.method.over(below.method),
            adapter: self.adapter.over(below.adapter),
            optimizer: self.optimizer.over(below.optimizer),
            train: self.train.over(below.train),
            validation: self.validation.over(below.validation),
            checkpoint: self.checkpoint.over(below.checkpoint),
            logging: self.logging.over(below.logging),
            output: self.output.over(below.output),
            renamed: [below.renamed, self.renamed].concat(),
        }
    }
}

impl MethodSection {
    /// Whether this table asks for another method than the one below.
    pub(crate) fn replaces(&self, below: &Self) -> bool {
        matches!((&self.name, &below.name), (Some(asked), Some(below)) if asked != below)
    }

    fn over(self, below: Self) -> Self {
        if self.replaces(&below) {
            return self;
        }
        let mut settings = below.settings;
        settings.extend(self.settings);
        Self { name: self.name.or(below.name), settings }
    }
}

/// Gives keys and values under the names of earlier versions those of this one.
///
/// # Errors
/// For a key under both names: where it stands, and what to do.
fn rename(recipe: &mut DeTable<'_>) -> Result<Vec<Warning>, (usize, String)> {
    let mut renamed = Vec::new();
    for key in keys().filter(|key| key.old_key.is_some() || key.old_value.is_some()) {
        let (section, new) = (key.section(), key.name());
        let Some(DeValue::Table(table)) = recipe.get_mut(section).map(|value| value.get_mut()) else {
            continue;
        };
        if let Some((mut name, value)) = key.old_key.and_then(|old| table.remove_entry(old)) {
            let old = std::mem::replace(name.get_mut(), Cow::Borrowed(new));
            if table.contains_key(new) {
                let message =
                    format!("\"{old}\" is the old name of \"{new}\", which is there too: remove one");
                return Err((name.span().start, message));
            }
            table.insert(name, value);
            renamed.push(Warning::Renamed { old: format!("{section}.{old}"), new: new.to_owned() });
        }
        if let Some(DeValue::String(value)) = table.get_mut(new).map(|value| value.get_mut())
            && let Some(name) = key.renamed_value(value)
        {
            renamed.push(Warning::Renamed {
                old: format!("{section}.{new} = \"{value}\""),
                new: format!("\"{name}\""),
            });
            *value = Cow::Borrowed(name);
        }
    }
    Ok(renamed)
}

/// Adds the nearest match to a parser's "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(word) if message.starts_with("unknown ") => {
            let known: Vec<&str> = quoted.collect();
            let kind = if message.starts_with("unknown field") { "key" } else { "value" };
            let guess = did_you_mean(nearest(word, known.iter().copied()));
            format!("unknown {kind} \"{word}\"{guess}; known are {}", known.join(", "))
        }
        _ => message.trim_end().replace('\n', ", "),
    }
}
