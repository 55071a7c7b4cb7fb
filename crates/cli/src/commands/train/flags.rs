//! The flags of `tastemaker train`, and the recipe they make.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;
use tastemaker_math::objectives::OBJECTIVES;
use tastemaker_run::{Key, MethodSection, Overrides, Recipe, Warning, keys};

use super::published::{self, Published};
use crate::commands::settings;
use crate::exit::UsageError;

/// Everything a recipe can say, and what published commands say besides.
#[derive(Debug, Default)]
pub struct Flags {
    recipe: Recipe,
    published: Published,
}

impl Flags {
    /// The flags as a recipe that overrides the recipe, whose method is `recipe_method`, and what to say about those that
    /// are ignored.
    ///
    /// # Errors
    /// [`UsageError`] for published flags that are refused, and for a setting typed under the name of another method.
    pub fn overrides(self, recipe_method: Option<&str>) -> Result<(Overrides, Vec<String>), UsageError> {
        let Self { mut recipe, published } = self;
        let method = recipe.method.name.as_deref().or(recipe_method).unwrap_or("not chosen");
        let mut settings = published.settings(method)?;
        settings.extend(recipe.method.settings);
        recipe.method.settings = settings;
        Ok((recipe, published.ignored))
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (mut typed, published) = published::typed(matches);
        let mut renamed = Vec::new();
        for key in keys() {
            let old = key.old_flag.filter(|old| matches.contains_id(old));
            renamed.extend(
                old.map(|old| Warning::Renamed { old: format!("--{old}"), new: format!("--{}", key.name()) }),
            );
            let value = settings::typed(matches, key.name(), key);
            if let Some(value) = value.or_else(|| settings::typed(matches, old?, key)) {
                settings::put(&mut typed, key.path, value);
            }
        }
        let mut recipe: Recipe = serde_json::from_value(typed)
            .map_err(|error| clap::Error::raw(clap::error::ErrorKind::InvalidValue, error))?;
        let name = matches.get_one::<String>("method").cloned().or(recipe.method.name);
        let settings = matches.get_many::<(String, Value)>("set").into_iter().flatten().cloned().collect();
        recipe.method = MethodSection { name, settings };
        recipe.renamed = renamed;
        Ok(Self { recipe, published })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let (before, after): (Vec<&Key>, Vec<&Key>) =
            keys().partition(|key| ["", "model", "data"].contains(&key.section()));
        let methods: Vec<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
        let method = Arg::new("method").long("method").value_name("NAME").help_heading("Method");
        let set = Arg::new("set").long("set").value_name("KEY=VALUE").help_heading("Method");
        command
            .args(before.into_iter().map(settings::arg))
            .arg(method.help(format!("Preference method: {}", methods.join(", "))))
            .arg(
                set.help("Setting of the method; repeat for several")
                    .action(ArgAction::Append)
                    .value_parser(setting),
            )
            .args(after.into_iter().map(settings::arg))
            .args(keys().filter_map(settings::old_arg))
            .args(published::args())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// `key=value`, the value as TOML would read it and else as a word.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("wanted KEY=VALUE")?;
    let parsed: Option<Value> = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|table| serde_json::to_value(&table["value"]).ok());
    Ok((key.trim().to_owned(), parsed.unwrap_or_else(|| Value::from(value.trim()))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tastemaker_run::Shape;

    use super::*;

    fn flags(line: &str) -> Flags {
        let command = Flags::augment_args(Command::new("train"));
        let words = std::iter::once("train").chain(line.split_whitespace());
        Flags::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }

    fn recipe(line: &str) -> Recipe {
        flags(line).overrides(None).unwrap().0
    }

    /// A value that a key takes, as typed.
    fn example(key: &Key) -> &'static str {
        [
            "lora", "adamw", "linear", "no", "live", "true", "constant", "joint", "unet", "none", "warn",
            "float32", "epsilon", "1",
        ]
        .into_iter()
        .find(|text| (key.read)(text).is_ok())
        .unwrap()
    }

    #[test]
    fn every_key_is_a_flag_of_its_name_a_key_of_recipes_and_a_value_of_plans() {
        for key in keys() {
            let value = (key.read)(example(key)).unwrap();
            let (typed, value) = match key.shape {
                Shape::One => (format!("--{} {}", key.name(), example(key)), value),
                Shape::Switch => (format!("--{}", key.name()), Value::Bool(true)),
                Shape::List | Shape::Repeated => {
                    (format!("--{} {}", key.name(), example(key)), json!([value]))
                }
                Shape::Map => (format!("--{} layer={}", key.name(), example(key)), json!({ "layer": value })),
            };
            let by_flag = recipe(&typed);
            let mut json = json!({});
            settings::put(&mut json, key.path, value);
            assert_eq!(by_flag, serde_json::from_value(json.clone()).unwrap(), "{}", key.path);
            let text = toml::to_string(&json).unwrap();
            assert_eq!(by_flag, Recipe::parse("r.toml".as_ref(), &text).unwrap(), "{text}");
        }
    }
}
