//! Flags of published training commands: shorthands of ours, those that have no counterpart here, and what a pasted command
//! leaves to its script.

mod flags;
mod scripts;

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};
use serde_json::{Map, Value, json};
use tastemaker_math::number;
use tastemaker_math::objectives::{COMMON_SETTINGS, OBJECTIVES, objective};

use crate::commands::settings::put;
use crate::exit::UsageError;
use flags::{Fate, Flag, Meaning, Takes};
pub use scripts::{Command, Script, script_named, script_of};

/// What of this was typed.
#[derive(Debug, Default)]
pub struct Published {
    /// What to say about flags that are ignored.
    pub ignored: Vec<String>,
    /// Flags that are refused, and what to type instead.
    refused: Vec<(&'static str, String)>,
    /// Settings of methods, by the flags that are short for them.
    settings: Vec<(&'static str, f64)>,
}

impl Published {
    /// The settings of a method that were typed by their published names.
    ///
    /// # Errors
    /// [`UsageError`] naming every flag that is refused, or one of another method.
    pub fn settings(&self, method: &str) -> Result<Map<String, Value>, UsageError> {
        if !self.refused.is_empty() {
            return Err(refusal(&self.refused));
        }
        let mut settings = Map::new();
        for &(flag, value) in &self.settings {
            let entry = OBJECTIVES.iter().find(|entry| entry.name == method);
            let setting = entry.and_then(|entry| entry.short_for(flag)).ok_or_else(|| {
                let owners = owners(flag);
                UsageError(format!("--{flag} is a setting of {owners}, and the method is {method}"))
            })?;
            settings.insert(setting.to_owned(), value.into());
        }
        Ok(settings)
    }

    /// The method that only a flag of it speaks of, with that flag.
    pub fn method(&self) -> Option<(&'static str, &'static str)> {
        let telling = [
            ("beta_dpo", "diffusion-dpo"),
            ("beta_mapo", "mapo"),
            ("mapo_beta", "mapo"),
            ("snr_value", "mapo"),
        ];
        telling.into_iter().find(|(flag, _)| self.settings.iter().any(|(typed, _)| typed == flag))
    }

    /// Multiplies the beta of a script whose factor is another one, and says so.
    pub fn convert_beta(&mut self, script: &Script) -> Option<String> {
        let (_, beta) = self.settings.iter_mut().find(|(flag, _)| *flag == "beta_dpo")?;
        let typed = *beta;
        *beta *= script.beta_factor;
        (*beta != typed).then(|| {
            format!(
                "--beta_dpo {} of {} is beta {} here, of which the loss takes half",
                number(typed),
                script.file,
                number(*beta)
            )
        })
    }
}

/// What is said about flags that are refused: all of them, and which of them a command can do without.
fn refusal(refused: &[(&str, String)]) -> UsageError {
    let (dropped, replaced): (Vec<_>, Vec<_>) =
        refused.iter().partition(|(_, instead)| instead.ends_with(DROP));
    let each = |(name, instead): &&(&str, String)| format!("--{name} is not supported: {instead}");
    let mut said: Vec<String> = replaced.iter().map(each).collect();
    match dropped.as_slice() {
        [] => {}
        [one] => said.push(each(one)),
        several => {
            let reasons = several.iter().map(|(name, instead)| {
                format!("--{name} ({})", instead.trim_end_matches(DROP).trim_end_matches([':', ' ']))
            });
            said.push(format!("not supported, leave them away: {}", reasons.collect::<Vec<_>>().join(", ")));
        }
    }
    UsageError(said.join("; "))
}

/// The end of what is said about a flag that a command can do without.
const DROP: &str = "leave it away";

/// The methods that have a setting by this flag, with commas between.
fn owners(flag: &str) -> String {
    let entries = OBJECTIVES.iter().filter(|entry| entry.short_for(flag).is_some());
    entries.map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// The setting of a method that a flag which is none probably meant: its name, or the end of it after a `_`.
pub fn setting_called(flag: &str) -> Option<String> {
    let settings = OBJECTIVES.iter().filter_map(|entry| {
        let method = objective(entry.name, &Value::Null).ok()?;
        Some(method.settings().as_object()?.keys().cloned().collect::<Vec<_>>())
    });
    let all: BTreeSet<String> = settings.flatten().chain(COMMON_SETTINGS.map(str::to_owned)).collect();
    let ends = |name: &&String| name.strip_suffix(flag).is_some_and(|start| start.ends_with('_'));
    all.iter()
        .find(|name| *name == flag)
        .or_else(|| all.iter().find(ends).filter(|_| !flag.is_empty()))
        .cloned()
}

/// The flags that are short for settings of methods.
fn short_flags() -> BTreeMap<&'static str, &'static str> {
    let shorthands = OBJECTIVES.iter().flat_map(|entry| entry.shorthands);
    shorthands.map(|shorthand| (shorthand.flag, shorthand.key)).collect()
}

/// Whether a flag only leads to a refusal, so that nobody is sent to it.
pub fn is_refused(name: &str) -> bool {
    flags::all().any(|flag| flag.name == name.replace('-', "_") && matches!(flag.fate, Fate::Refused(_)))
}

/// Whether a flag takes no value.
pub fn is_switch(name: &str) -> bool {
    flags::all().any(|flag| flag.name == name && flag.takes == Takes::Nothing)
}

/// The flags, for the parser; help shows only what stands for something of ours.
pub fn args() -> impl Iterator<Item = Arg> {
    let of_methods = short_flags().into_iter().map(|(flag, setting)| {
        let help = format!("Same as --set {setting}=VALUE, for {}", owners(flag));
        Arg::new(flag).long(flag).value_name("VALUE").value_parser(clap::value_parser!(f64)).help(help)
    });
    let others = flags::all().map(|&Flag { name, takes, fate }| {
        let arg = Arg::new(name).long(name);
        let arg = match takes {
            Takes::Nothing => arg.action(ArgAction::SetTrue),
            Takes::One => arg.action(ArgAction::Set).value_name("VALUE"),
            Takes::Any => arg.action(ArgAction::Set).num_args(0..),
        };
        match fate {
            Fate::Sets(keys) => {
                arg.help(format!("Same as {}", in_full(keys))).conflicts_with_all(others(name, keys))
            }
            _ if name == "caption_column" => arg.value_name("NAME").help("Same as --columns caption=NAME"),
            _ => arg.hide(true),
        }
    });
    of_methods.chain(others).map(|arg| arg.help_heading("Shorthands of published scripts"))
}

/// What a shorthand stands for, as it would be typed.
fn in_full(keys: &[(&str, &str)]) -> String {
    let flag = |(path, value): &(&str, &str)| {
        let name = id(path);
        match (path.strip_prefix("method."), *value) {
            (Some(setting), value) if setting != "name" => format!("--set {setting}={value}"),
            (_, "true") => format!("--{name}"),
            (_, value) => format!("--{name} {}", value.replace(['[', ']', '"'], "")),
        }
    };
    keys.iter().map(flag).collect::<Vec<_>>().join(" ")
}

fn id(path: &str) -> &str {
    if path == "method.name" { "method" } else { path.rsplit('.').next().unwrap_or(path) }
}

/// The flags that a shorthand cannot stand beside: the key it sets, and other shorthands of that.
fn others(shorthand: &str, keys: &[(&'static str, &str)]) -> Vec<&'static str> {
    let is_setting = |path: &str| path.starts_with("method.") && path != "method.name";
    let set: Vec<&'static str> = keys
        .iter()
        // Names in a list are a start, and another list may be typed in its place.
        .filter(|(path, value)| *value != "true" && !value.starts_with('[') && !is_setting(path))
        .map(|(path, _)| *path)
        .collect();
    let sets_one_of =
        |fate: &Fate| matches!(fate, Fate::Sets(keys) if keys.iter().any(|(path, _)| set.contains(path)));
    let twins = flags::all().filter(|flag| flag.name != shorthand && sets_one_of(&flag.fate));
    set.iter().map(|path| id(path)).chain(twins.map(|flag| flag.name)).collect()
}

/// What was typed: the shorthands as a recipe below the keys of ours, those above them, and everything else.
pub fn typed(matches: &ArgMatches) -> (Value, Value, Published) {
    let is_typed = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let (mut below, mut above, mut published) = (json!({}), json!({}), Published::default());
    let of_methods = short_flags().into_keys().filter(|flag| is_typed(flag));
    published.settings = of_methods.filter_map(|flag| Some((flag, *matches.get_one::<f64>(flag)?))).collect();
    for flag in flags::all().filter(|flag| is_typed(flag.name)) {
        let values = || -> Vec<&str> {
            match flag.takes {
                Takes::Nothing => Vec::new(),
                Takes::One | Takes::Any => {
                    matches.get_many::<String>(flag.name).into_iter().flatten().map(String::as_str).collect()
                }
            }
        };
        let meaning = match flag.fate {
            Fate::Ignored(reason) => Meaning::Ignored(reason),
            Fate::Refused(instead) => Meaning::Refused(instead.to_owned()),
            Fate::Sets(keys) => {
                let value = |text: &str| serde_json::from_str(text).unwrap_or_default();
                Meaning::Sets(keys.iter().map(|(path, text)| (*path, value(text))).collect())
            }
            Fate::Reads(read) => read(&values()),
        };
        let name = flag.name;
        match meaning {
            Meaning::Nothing => {}
            Meaning::Ignored(reason) => published.ignored.push(format!("--{name} is ignored: {reason}")),
            Meaning::Refused(instead) => published.refused.push((name, instead)),
            Meaning::Overrides(keys) => {
                keys.into_iter().for_each(|(path, value)| put(&mut above, path, value))
            }
            Meaning::Sets(keys) => keys.into_iter().for_each(|(path, value)| put(&mut below, path, value)),
        }
    }
    (below, above, published)
}
