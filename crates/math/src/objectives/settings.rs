//! Settings of an objective: strict parsing with errors that say what to type instead.

use crate::nearest::{did_you_mean, nearest};
use crate::number;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The settings of a method: every key has a default, and those are the keys there are.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Whether the values can be.
    fn check(&self) -> Result<(), SettingsError>;
}

/// An objective that cannot be built as asked.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No objective has this name.
    #[error("unknown objective \"{name}\"{}; known are {}", did_you_mean(*.nearest), .known.join(", "))]
    UnknownObjective {
        /// The name as typed.
        name: String,
        /// What it probably meant.
        nearest: Option<&'static str>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// The settings are not a table.
    #[error("settings of an objective are a table of keys and values, found {found}")]
    NotATable {
        /// The value as typed.
        found: Value,
    },
    /// A key the objective does not have.
    #[error("unknown setting \"{key}\"{}; known are {}", did_you_mean(.nearest.as_deref()), .known.join(", "))]
    UnknownKey {
        /// The key as typed.
        key: String,
        /// What it probably meant.
        nearest: Option<String>,
        /// All keys.
        known: Vec<String>,
    },
    /// A value of the wrong type, or a word that is not one of the choices.
    #[error("setting \"{key}\": {source}")]
    Value {
        /// The key.
        key: String,
        /// What the parser made of the value.
        source: serde_json::Error,
    },
    /// A value of the right type that cannot be.
    #[error("setting \"{key}\" must be {wanted}, found {found}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What would do.
        wanted: &'static str,
        /// The value as typed.
        found: String,
    },
}

/// Parses and checks settings; `null` means all defaults.
pub fn parse<S: Settings>(settings: &Value) -> Result<S, SettingsError> {
    let typed = match settings {
        Value::Null => &Map::new(),
        Value::Object(typed) => typed,
        other => return Err(SettingsError::NotATable { found: other.clone() }),
    };
    let defaults = print(&S::default());
    let known: Vec<&str> = defaults.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    for (key, value) in typed {
        if !known.contains(&key.as_str()) {
            return Err(SettingsError::UnknownKey {
                key: key.clone(),
                nearest: nearest(key, known.iter().copied()).map(Into::into),
                known: known.iter().map(|&key| key.into()).collect(),
            });
        }
        // Each key is tried alone, since the parser's own message does not name the key a value belongs to
        let alone: Map<String, Value> = [(key.clone(), value.clone())].into_iter().collect();
        serde_json::from_value::<S>(Value::Object(alone))
            .map_err(|source| SettingsError::Value { key: key.clone(), source })?;
    }
    let parsed: S = serde_json::from_value(Value::Object(typed.clone()))
        .map_err(|source| SettingsError::Value { key: "*".into(), source })?;
    parsed.check()?;
    Ok(parsed)
}

/// Settings as they are printed.
///
/// # Panics
/// Never: settings are structs of numbers and words, and serializing those cannot fail.
pub fn print<S: Serialize>(settings: &S) -> Value {
    serde_json::to_value(settings).expect("a struct of numbers and words serializes")
}

/// Checks that a number is positive and finite.
pub fn positive(key: &'static str, value: f64) -> Result<(), SettingsError> {
    in_range(key, value, "a positive number", |value| value > 0.0 && value.is_finite())
}

/// Checks that a number is between 0 and 1, both allowed.
pub fn fraction(key: &'static str, value: f64) -> Result<(), SettingsError> {
    in_range(key, value, "between 0 and 1", |value| (0.0..=1.0).contains(&value))
}

/// Checks that a count is not 0.
pub fn at_least_one(key: &'static str, value: usize) -> Result<(), SettingsError> {
    in_range(key, value, "at least 1", |value| value > 0)
}

/// Checks a value, `wanted` being what would do.
pub fn in_range<T: Copy + Serialize>(
    key: &'static str,
    value: T,
    wanted: &'static str,
    is_good: impl Fn(T) -> bool,
) -> Result<(), SettingsError> {
    if is_good(value) {
        return Ok(());
    }
    // JSON has no word for what is no number.
    let found = serde_json::to_value(value).unwrap_or_default();
    let found = found.as_u64().map_or_else(|| number(found.as_f64().unwrap_or(f64::NAN)), |n| n.to_string());
    Err(SettingsError::OutOfRange { key, wanted, found })
}
