//! Settings: what one is, and the macro that makes sections of a recipe and of a plan out of one declaration each.

mod checks;
mod choices;
mod sections;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tastemaker_math::objectives::BetaConvention;
use tastemaker_math::{Prediction, number};
use tastemaker_store::dtype::{BasePrecision, DType};

use crate::health::Rule;
use crate::schedule::LrScheduler;

pub use checks::Check;
pub use choices::*;
pub use sections::*;

/// One setting: a key of the recipe, the flag of the same name, and the field of the plan.
#[derive(Debug)]
pub struct Key {
    /// Section and name, such as `optimizer.learning_rate`.
    pub path: &'static str,
    /// The heading that its flag stands under.
    pub heading: &'static str,
    /// What it is, for `--help`.
    pub help: &'static str,
    /// What help calls its value.
    pub value_name: &'static str,
    /// How its flag takes values.
    pub shape: Shape,
    /// Reads a value as typed; of a list or map, one entry.
    pub read: fn(&str) -> Result<Value, String>,
    /// Whether a run cannot do without.
    pub is_required: bool,
    /// Whether it changes no trained weight, so that it may change when a run is resumed.
    pub is_free: bool,
    /// Names that other tools give the flag.
    pub aliases: &'static str,
    /// The name of the key in earlier versions.
    pub old_key: Option<&'static str>,
    /// The name of the flag in earlier versions.
    pub old_flag: Option<&'static str>,
    /// A value as it was called in earlier versions, and as it is called now.
    pub old_value: Option<(&'static str, &'static str)>,
    /// Which values may be.
    pub check: Option<Check>,
}

/// How a flag takes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One.
    One,
    /// None, or `=true` or `=false`.
    Switch,
    /// Several with commas between.
    List,
    /// One, repeated for several.
    Repeated,
    /// Several `NAME=VALUE` with commas between.
    Map,
}

impl Key {
    const fn new<T: Setting>(path: &'static str, heading: &'static str, help: &'static str) -> Self {
        Self {
            path,
            heading,
            help,
            value_name: "VALUE",
            shape: T::SHAPE,
            read: T::read,
            is_required: false,
            is_free: false,
            aliases: "",
            old_key: None,
            old_flag: None,
            old_value: None,
            check: None,
        }
    }

    const fn value(self, value_name: &'static str) -> Self {
        Self { value_name, ..self }
    }

    const fn alias(self, aliases: &'static str) -> Self {
        Self { aliases, ..self }
    }

    const fn check(self, check: Check) -> Self {
        Self { check: Some(check), ..self }
    }

    const fn read(self, read: fn(&str) -> Result<Value, String>) -> Self {
        Self { read, ..self }
    }

    const fn free(self, is_free: bool) -> Self {
        Self { is_free, ..self }
    }

    const fn repeated(self, is_repeated: bool) -> Self {
        Self { shape: if is_repeated { Shape::Repeated } else { self.shape }, ..self }
    }

    const fn old_key(self, name: &'static str) -> Self {
        Self { old_key: Some(name), ..self }
    }

    const fn old_flag(self, name: &'static str) -> Self {
        Self { old_flag: Some(name), ..self }
    }

    const fn old_value(self, names: (&'static str, &'static str)) -> Self {
        Self { old_value: Some(names), ..self }
    }

    /// The name of now of a value that was typed by an old one.
    pub fn renamed_value(&self, value: &str) -> Option<&'static str> {
        self.old_value.filter(|(old, _)| value.eq_ignore_ascii_case(old)).map(|(_, new)| new)
    }

    /// The section of the recipe; empty for a key outside of them.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name of key and flag.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Whether its value is a place on this machine.
    pub fn is_place(&self) -> bool {
        self.value_name.split('|').any(|kind| ["DIR", "FILE"].contains(&kind))
    }

    /// Whether its flag goes by this name.
    pub fn is_called(&self, flag: &str) -> bool {
        self.name() == flag
            || self.old_flag == Some(flag)
            || self.aliases.split_whitespace().any(|alias| alias == flag)
    }

    /// The value that is typed for it, in a recipe as JSON.
    pub fn typed<'a>(&self, recipe: &'a Value) -> Option<&'a Value> {
        match self.section() {
            "" => recipe.get(self.path),
            section => recipe.get(section)?.get(self.name()),
        }
    }

    /// The value it has where nothing is typed, in words; `None` where there is none or help says it.
    pub fn default(&self) -> Option<String> {
        let value =
            self.typed(&DEFAULTS).filter(|_| !self.is_required && self.shape != Shape::Switch)?.clone();
        let words = words(&value).replace(", ", ",");
        (!words.is_empty() && !self.help.contains("[default:")).then_some(words)
    }
}

/// All settings but the method and its own.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    std::iter::once(&OUTPUT_DIR).chain(SECTIONS)
}

static OUTPUT_DIR: Key = {
    let key = Key::new::<PathBuf>("output_dir", "Output", "Folder for results").value("DIR").alias("out");
    Key { is_required: true, ..key.free(true) }
};

/// A type of values, and how a flag reads one.
trait Setting {
    const SHAPE: Shape;
    fn read(text: &str) -> Result<Value, String>;
}

macro_rules! one {
    ($($kind:ty)*) => { $(impl Setting for $kind {
        const SHAPE: Shape = Shape::One;
        fn read(text: &str) -> Result<Value, String> {
            read::<Self>(text)
        }
    })* };
}

one! {
    String PathBuf f64 u32 u64 usize Prediction Augment HeldOutChoice TimeIds OutputLayout AdapterKind BasePrecision DType OptimizerKind
    ReferenceKind Tracker Rule LrScheduler TimestepDensity BetaConvention
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Switch;

    fn read(text: &str) -> Result<Value, String> {
        read::<Self>(text)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = Shape::List;

    fn read(text: &str) -> Result<Value, String> {
        T::read(text)
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map;

    fn read(text: &str) -> Result<Value, String> {
        T::read(text)
    }
}

/// A word or a number, whichever the type takes; words of ours also in capitals, as kohya's scripts have them.
fn read<T: DeserializeOwned>(text: &str) -> Result<Value, String> {
    let lower = Value::from(text.to_lowercase());
    let is_word = |word: &Value| serde_json::from_value::<T>(word.clone()).is_ok();
    let word = if !is_word(&text.into()) && is_word(&lower) { lower } else { Value::from(text) };
    let number = text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
    let other = text.parse::<bool>().map(Value::from).or(number);
    let fits = |value: &Value| serde_json::from_value::<T>(value.clone()).map(drop);
    match (fits(&word), other) {
        (Ok(()), _) => Ok(word),
        (Err(_), Ok(value)) => match fits(&value) {
            Ok(()) => Ok(value),
            Err(error) => Err(error.to_string().replace('`', "")),
        },
        (Err(error), Err(_)) => Err(error.to_string().replace('`', "")),
    }
}

/// The side of a square, also where it is typed as two equal ones.
fn side(text: &str) -> Result<Value, String> {
    match text.split_once([',', 'x']) {
        None => read::<u32>(text),
        Some((width, height)) if width.trim() == height.trim() => read::<u32>(width.trim()),
        Some((width, height)) => {
            let [width, height] = [width, height].map(|side| side.trim().parse::<f64>().unwrap_or_default());
            let side = ((width * height).sqrt() as u32 / 64 * 64).max(64);
            Err(format!(
                "images are square, or in buckets of about as many pixels: give --resolution {side} --enable_bucket"
            ))
        }
    }
}

/// An optimizer as kohya's and OneTrainer's tools spell it. Paging only keeps its state elsewhere.
fn optimizer(text: &str) -> Result<Value, String> {
    let name: String = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let others = |name: &str, but: &str| {
        Err(format!("there is no {name} here: give --optimizer_type adamw8bit, and --learning_rate {but}"))
    };
    match name.strip_prefix("paged").unwrap_or(&name) {
        "adamw" => read::<OptimizerKind>("adamw"),
        "adamw8bit" => read::<OptimizerKind>("adamw8bit"),
        "adafactor" => read::<OptimizerKind>("adafactor"),
        name if name.contains("lion") => others(text, "3 to 10 times as high"),
        name if name.contains("prodigy") || name.starts_with("dadapt") => {
            others(text, "1e-5 or so, for it finds none itself")
        }
        _ => read::<OptimizerKind>(text),
    }
}

/// Trackers that there are none of log to TensorBoard's files, which theirs read.
fn tracker(text: &str) -> Result<Value, String> {
    let others = ["wandb", "comet_ml", "all", "clearml", "dvclive", "mlflow", "aim", "swanlab", "trackio"];
    read::<Tracker>(if others.contains(&text.to_lowercase().as_str()) { "tensorboard" } else { text })
}

/// A value as people write it; empty for nothing.
pub fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(n) => {
            n.as_u64().map_or_else(|| number(n.as_f64().unwrap_or(f64::NAN)), |n| n.to_string())
        }
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| format!("{name} {}", words(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Makes sections: a typed one whose keys are all optional, a planned one whose values are all there, and their [`Key`]s.
///
/// After the type stands the default: `required`, `default` for that of the type, an expression, which may name keys above
/// it, or nothing, where the plan may be without. Then options of [`Key`] follow. A key `apart` is not in the plan's section.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $section:ident $heading:literal: $typed:ident => $plan:ident
        $(apart $(#[doc = $apart_help:literal])+ $apart:ident: $apart_type:ty $(, $apart_option:ident $apart_argument:tt)*;)?
        {
            $(
                $(#[doc = $help:literal])+
                $(#[serde($serde:meta)])?
                $key:ident: $kind:ty $(= $default:tt)? $(, $option:ident $argument:tt)*;
            )*
        }
    )*) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            pub struct $typed {
                $(
                    $(#[doc = $apart_help])+
                    #[serde(skip_serializing_if = "Option::is_none")]
                    pub $apart: Option<$apart_type>,
                )?
                $(
                    $(#[doc = $help])+
                    #[serde(skip_serializing_if = "Option::is_none")]
                    $(#[serde($serde)])?
                    pub $key: Option<$kind>,
                )*
            }

            impl $typed {
                pub(crate) fn over(self, below: Self) -> Self {
                    Self {
                        $($apart: self.$apart.or(below.$apart),)?
                        $($key: self.$key.or(below.$key),)*
                    }
                }
            }

            #[doc = concat!("[`", stringify!($typed), "`] with every default filled in.")]
            #[derive(Debug, Clone, PartialEq, Serialize)]
            pub struct $plan {
                $($(#[doc = $help])+ pub $key: planned!($kind $(= $default)?),)*
            }

            impl From<$typed> for $plan {
                fn from(typed: $typed) -> Self {
                    $(let $key = filled!(typed.$key $(= $default)?);)*
                    Self { $($key),* }
                }
            }

            impl Default for $plan {
                fn default() -> Self {
                    Self::from($typed::default())
                }
            }

            impl<'de> Deserialize<'de> for $plan {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    $typed::deserialize(deserializer).map(Self::from)
                }
            }
        )*

        pub(super) static SECTIONS: &[Key] = &[
            $(
                $(
                    Key::new::<$apart_type>(
                        concat!(stringify!($section), ".", stringify!($apart)), $heading, concat!($($apart_help),+)
                    )$(.$apart_option($apart_argument))*,
                )?
                $(
                    Key {
                        is_required: is_required!($($default)?),
                        ..Key::new::<$kind>(
                            concat!(stringify!($section), ".", stringify!($key)), $heading, concat!($($help),+)
                        )$(.$option($argument))*
                    },
                )*
            )*
        ];

        /// What sections are where nothing is typed.
        pub(super) static DEFAULTS: LazyLock<Value> =
            LazyLock::new(|| json!({ $(stringify!($section): $plan::default(),)* }));
    };
}

macro_rules! planned {
    ($kind:ty) => { Option<$kind> };
    ($kind:ty = $default:tt) => { $kind };
}

macro_rules! filled {
    ($typed:ident.$key:ident) => {
        $typed.$key
    };
    ($typed:ident.$key:ident = required) => {
        $typed.$key.unwrap_or_default()
    };
    ($typed:ident.$key:ident = default) => {
        $typed.$key.unwrap_or_default()
    };
    ($typed:ident.$key:ident = $default:tt) => {
        $typed.$key.unwrap_or_else(|| $default)
    };
}

macro_rules! is_required {
    (required) => {
        true
    };
    ($($default:tt)?) => {
        false
    };
}

use {filled, is_required, planned, settings};
