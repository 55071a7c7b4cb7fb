//! Flags of settings, made from their declarations.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tastemaker_run::{Key, Shape};

/// The flag of a key.
pub fn arg(key: &'static Key) -> Arg {
    let note = match key.shape {
        _ if key.is_required => Some("[required]".to_owned()),
        Shape::Switch => Some("[default: false]".to_owned()),
        _ => key.default().map(|default| format!("[default: {default}]")),
    };
    let help: Vec<&str> = std::iter::once(key.help.trim()).chain(note.as_deref()).collect();
    takes(Arg::new(key.name()).long(key.name()), key)
        .aliases(key.aliases.split_whitespace())
        .help(help.join(" "))
        .help_heading(key.heading)
}

/// The flag of a key under the name that an earlier version gave it; help does not show it.
pub fn old_arg(key: &'static Key) -> Option<Arg> {
    let name = key.old_flag?;
    Some(takes(Arg::new(name).long(name), key).hide(true))
}

fn takes(arg: Arg, key: &'static Key) -> Arg {
    let read = key.read;
    let arg = arg.value_name(key.value_name);
    match key.shape {
        Shape::One => arg.value_parser(read),
        Shape::Switch => arg
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(read)
            .hide_possible_values(true),
        Shape::Repeated => arg.action(ArgAction::Append).value_parser(read),
        Shape::List => arg.action(ArgAction::Append).value_delimiter(',').value_parser(read),
        Shape::Map => arg.action(ArgAction::Append).value_delimiter(',').value_parser(move |text: &str| {
            let (name, value) = text.split_once('=').ok_or("wanted KEY=VALUE")?;
            read(value.trim()).map(|value| Value::from_iter([(name.trim(), value)]))
        }),
    }
}

/// What was typed for a key under the flag of this name.
pub fn typed(matches: &ArgMatches, name: &str, key: &Key) -> Option<Value> {
    let mut values = matches.get_many::<Value>(name)?.cloned();
    match key.shape {
        Shape::One | Shape::Switch => values.next_back(),
        Shape::List | Shape::Repeated => Some(values.collect()),
        Shape::Map => {
            let entries =
                values.filter_map(|entry| if let Value::Object(entry) = entry { Some(entry) } else { None });
            Some(Value::Object(entries.flatten().collect()))
        }
    }
}

/// Puts a value under its section and name, or adds its entries to those there.
pub fn put(recipe: &mut Value, path: &str, value: Value) {
    let place = match path.split_once('.') {
        Some((section, name)) => &mut recipe[section][name],
        None => &mut recipe[path],
    };
    match (place, value) {
        (Value::Object(there), Value::Object(more)) => there.extend(more),
        (place, value) => *place = value,
    }
}

/// What was typed for these keys of one section.
///
/// # Errors
/// As `clap` words them; readers of keys refuse such values before.
pub fn section<T: DeserializeOwned>(
    matches: &ArgMatches,
    keys: impl Iterator<Item = &'static Key>,
) -> Result<T, clap::Error> {
    let entries = keys.filter_map(|key| Some((key.name().to_owned(), typed(matches, key.name(), key)?)));
    serde_json::from_value(Value::Object(entries.collect::<Map<_, _>>()))
        .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, error))
}

/// Implements [`clap::Args`] for a struct around a section, of which only some keys are flags.
macro_rules! section_args {
    ($flags:ident, $keys:ident) => {
        impl clap::FromArgMatches for $flags {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                $crate::commands::settings::section(matches, $keys()).map(Self)
            }

            fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl clap::Args for $flags {
            fn augment_args(command: clap::Command) -> clap::Command {
                command.args($keys().map($crate::commands::settings::arg))
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }
    };
}

pub(crate) use section_args;
