//! The flags of `tastemaker train`, and the recipe they make.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;
use tastemaker_math::objectives::OBJECTIVES;
use tastemaker_run::{Key, Overrides, Recipe, Warning, keys};

use super::published::{self, Published, Script};
use crate::commands::settings;
use crate::exit::UsageError;

/// Everything a recipe can say, and what published commands say besides.
#[derive(Debug, Default)]
pub struct Flags {
    recipe: Recipe,
    published: Published,
    /// The names of all flags as they were typed, with underscores.
    names: BTreeSet<String>,
}

/// What flags say beside a recipe.
#[derive(Debug, Default)]
pub struct Meant {
    /// A recipe that overrides the recipe.
    pub overrides: Overrides,
    /// The script that the command was pasted from.
    pub script: Option<&'static Script>,
    /// What the command leaves to it.
    pub defaults: Recipe,
    /// What to say about all this.
    pub notices: Vec<String>,
}

impl Flags {
    /// Takes the names of flags as they were typed, which tell the scripts of pasted commands apart.
    pub fn see(&mut self, line: &[OsString]) {
        let flags = line.iter().filter_map(|arg| arg.to_str()?.strip_prefix("--")?.split('=').next());
        self.names = flags.map(|flag| flag.replace('-', "_")).collect();
    }

    /// What the flags say, beside a recipe or as a command of the training script `file`. `is_xl` says whether the model of this
    /// name and revision is an SDXL.
    ///
    /// # Errors
    /// [`UsageError`] for published flags that are refused, and for a setting typed under the name of another method.
    pub fn meant(
        self,
        recipe: Option<&Recipe>,
        file: Option<&str>,
        is_xl: impl Fn(&str, Option<&str>) -> bool,
    ) -> Result<Meant, UsageError> {
        let Self { recipe: mut overrides, mut published, names } = self;
        let mut said = Meant::default();
        let of_recipe = recipe.and_then(|recipe| recipe.method.name.clone());
        if recipe.is_none() {
            let model = overrides.model.pretrained_model_name_or_path.clone().unwrap_or_default();
            let revision = overrides.model.revision.clone();
            let output_dir = overrides.output_dir.clone().unwrap_or_default();
            said.script = published::script_of(&published::Command {
                typed: &names,
                file,
                model: &model,
                output_dir: &output_dir.to_string_lossy(),
                is_xl: &|| is_xl(&model, revision.as_deref()),
                has_method: names.contains("method"),
            });
        }
        if let Some(script) = said.script {
            said.defaults = script.recipe(&names);
            said.notices.extend(published.convert_beta(script));
            said.notices.push(script.about(&overrides, &said.defaults));
        } else if overrides.method.name.is_none()
            && of_recipe.is_none()
            && let Some((flag, method)) = published.method()
        {
            said.notices.push(format!("the method is {method}, because --{flag} is a setting of it"));
            overrides.method.name = Some(method.to_owned());
        }
        let method =
            [&overrides.method.name, &of_recipe, &said.defaults.method.name].into_iter().flatten().next();
        let mut settings = published.settings(method.map_or("not chosen", String::as_str))?;
        settings.extend(overrides.method.settings);
        overrides.method.settings = settings;
        said.notices.extend(published.ignored);
        Ok(Meant { overrides, ..said })
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (mut typed, above, mut published) = published::typed(matches);
        published.ignored.extend(other_tracker(matches));
        let mut renamed = Vec::new();
        for key in keys() {
            let old = key.old_flag.filter(|old| matches.contains_id(old));
            renamed.extend(
                old.map(|old| Warning::Renamed { old: format!("--{old}"), new: format!("--{}", key.name()) }),
            );
            // The last of two wins, under either name.
            let last = |name: &str| matches.indices_of(name).and_then(Iterator::last);
            let name = old.filter(|old| last(old) > last(key.name())).unwrap_or(key.name());
            let Some(mut value) = settings::typed(matches, name, key) else { continue };
            if let Some(new) = value.as_str().and_then(|value| key.renamed_value(value)) {
                let flag = key.name();
                renamed.push(Warning::Renamed {
                    old: format!("--{flag} {}", value.as_str().unwrap_or_default()),
                    new: format!("--{flag} {new}"),
                });
                value = new.into();
            }
            settings::put(&mut typed, key.path, value);
        }
        let read = |typed: Value| {
            serde_json::from_value::<Recipe>(typed)
                .map_err(|error| clap::Error::raw(clap::error::ErrorKind::InvalidValue, error))
        };
        let mut recipe = read(above)?.over(read(typed)?);
        recipe.method.name = matches.get_one::<String>("method").cloned().or(recipe.method.name);
        recipe
            .method
            .settings
            .extend(matches.get_many::<(String, Value)>("set").into_iter().flatten().cloned());
        recipe.renamed = renamed;
        Ok(Self { recipe, published, names: BTreeSet::new() })
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
            .arg(method.help(format!("Preference method: {} [required]", methods.join(", "))))
            .arg(
                set.help("Setting of the method; repeat for several; settings per method: docs/reference/objectives.md")
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

/// What to say about a tracker that there is none of.
fn other_tracker(matches: &ArgMatches) -> Option<String> {
    let typed = matches.get_raw("report_to")?.next_back()?.to_str()?;
    let is_ours = ["tensorboard", "none"].contains(&typed);
    (!is_ours)
        .then(|| format!("--report_to {typed}: metrics go to TensorBoard files and events.jsonl instead"))
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
        flags(line).meant(None, None, |_, _| false).unwrap().overrides
    }

    /// A value that a key takes, as typed.
    fn example(key: &Key) -> &'static str {
        [
            "lora", "adamw", "linear", "no", "live", "true", "constant", "joint", "unet", "none", "warn",
            "counted", "float32", "int8", "epsilon", "mean", "uniform", "1", "0.25",
        ]
        .into_iter()
        .find(|text| (key.read)(text).is_ok())
        .unwrap()
    }

    #[test]
    fn help_says_which_settings_are_required_and_what_switches_take() {
        let mut command = Flags::augment_args(Command::new("train"));
        let help = command.render_help().to_string();
        let of = |name: &str| {
            let from = help.find(&format!("\n      --{name}")).unwrap() + "\n      ".len();
            let text = &help[from..];
            text[2..].find("  --").map_or(text, |end| &text[..end + 2]).to_owned()
        };
        for key in keys() {
            assert_eq!(of(key.name()).contains("[required]"), key.is_required, "{}", key.path);
            let is_switch = of(key.name()).starts_with(&format!("--{}[=<true|false>]", key.name()));
            assert_eq!(is_switch, key.shape == Shape::Switch, "{}", key.path);
        }
    }

    #[test]
    fn old_names_of_flags_and_values_are_said_and_the_last_of_two_wins() {
        let said = |line: &str| {
            let recipe = flags(line).recipe;
            let renamed: Vec<String> = recipe.renamed.iter().map(ToString::to_string).collect();
            (Recipe { renamed: Vec::new(), ..recipe }, renamed.join(", "))
        };
        for (old, now, name) in [
            ("--optimizer adafactor", "--optimizer_type adafactor", "--optimizer -> --optimizer_type"),
            ("--reference bank", "--reference precomputed", "--reference bank -> --reference precomputed"),
            ("--adapter_type lora --adapter full", "--adapter_type full", "--adapter -> --adapter_type"),
            ("--adapter full --adapter_type lora", "--adapter_type lora", "--adapter -> --adapter_type"),
        ] {
            assert_eq!(said(old), (said(now).0, name.to_owned()), "{old}");
        }
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
