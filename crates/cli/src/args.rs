//! The command line, and what was typed on it.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tastemaker_run::{Shape, keys};
use tastemaker_torch::versions;

use crate::commands::accuracy::AccuracyArgs;
use crate::commands::compare::{self, CompareArgs};
use crate::commands::completions::CompletionsArgs;
use crate::commands::curate::CurateArgs;
use crate::commands::data::DataCommand;
use crate::commands::demo::{DemoArgs, PretrainArgs};
use crate::commands::doctor::DoctorArgs;
use crate::commands::model::ModelCommand;
use crate::commands::sample::{self, SampleArgs};
use crate::commands::score::ScoreArgs;
use crate::commands::train::{TrainArgs, note_old_names, published};
use crate::commands::vote::VoteArgs;
use crate::commands::watch::WatchArgs;
use crate::exit::Exit;
use crate::place::inputs;
use crate::{home, hub, output};

/// Aligns text-to-image diffusion models with human taste.
#[derive(Debug, Parser)]
#[command(name = "tastemaker", version = version(), about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Align the embedded model with each method, evaluate the results, write a report.
    Demo(DemoArgs),
    /// Align a model with pairs of images.
    Train(Box<TrainArgs>),
    /// Generate images for prompts with a model, or with a model and a LoRA.
    Sample(Box<SampleArgs>),
    /// Score images for their prompts.
    Score(ScoreArgs),
    /// Generate images for prompts with several models, score them, and report win rates.
    Compare(Box<CompareArgs>),
    /// Let people vote on pairs of images, and say what the votes come to.
    Vote(Box<VoteArgs>),
    /// Watch runs as they go.
    Watch(WatchArgs),
    /// Walk through a set of pairs and say what is wrong with it.
    Curate(CurateArgs),
    /// Measure preference accuracy: how often a model's implicit reward ranks the winner higher.
    Accuracy(Box<AccuracyArgs>),
    /// Inspect, convert and merge models and adapters; fetch models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Prepare pairs of images.
    #[command(subcommand)]
    Data(DataCommand),
    /// Say what this machine offers and what is wrong with it; a bug report needs its output.
    Doctor(DoctorArgs),
    /// Print what a shell needs to complete commands, or write manual pages.
    Completions(CompletionsArgs),
    /// Train one part of the embedded model on the embedded art.
    Pretrain(PretrainArgs),
}

/// Version, the commit where it is that of a package, and the libtorch it runs on.
fn version() -> String {
    let libtorch = versions::libtorch().map(|release| format!(" (libtorch {release})"));
    format!("{}{}", tastemaker_store::version(), libtorch.unwrap_or_default())
}

/// Parses a command line; help, version and mistakes end the process here, as `clap` words them.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Command {
    let line = spread(line.into_iter().collect());
    let line = home::expanded(line, hub::home_folder().as_deref());
    let trains = line.get(1).is_some_and(|command| command == "train");
    let matches = command().try_get_matches_from(&line).unwrap_or_else(|error| end(&sound(error, trains)));
    inputs::keep(&command(), &matches);
    let cli = Cli::from_arg_matches(&matches);
    let mut command = cli.unwrap_or_else(|error| end(&error)).command;
    match &mut command {
        Command::Train(args) => args.flags.see(&line),
        Command::Data(DataCommand::Cache(args)) => args.flags.see(&line),
        _ => {}
    }
    let flags = line.iter().filter_map(|arg| arg.to_str()?.strip_prefix("--")?.split('=').next());
    let flags: Vec<String> = flags.map(|flag| flag.replace('-', "_")).collect();
    let renamed = RENAMED.into_iter().filter(|(old, _)| flags.iter().any(|flag| flag == old));
    let renamed: Vec<String> = renamed.map(|(old, new)| format!("--{old} -> --{new}")).collect();
    note_old_names("flags", &renamed);
    command
}

/// A line of training with a flag before each of several values, and switches with their value, as the parsers of published scripts
/// take both: `--validation_prompts a b` is `--validation_prompts a --validation_prompts b`, and `--no_hflip false` is
/// `--no_hflip=false`.
fn spread(line: Vec<OsString>) -> Vec<OsString> {
    let is = |at: usize, word: &str| line.get(at).is_some_and(|typed| typed == word);
    if !(is(1, "train") || is(1, "data") && is(2, "cache")) {
        return line;
    }
    let mut spread = Vec::with_capacity(line.len());
    let mut words = line.into_iter().peekable();
    while let Some(word) = words.next() {
        let typed = word.to_str().and_then(|word| word.strip_prefix("--")).unwrap_or_default();
        let (name, value) = typed.split_once('=').map_or((typed, None), |(name, value)| (name, Some(value)));
        let (flag, name) = (format!("--{name}"), name.replace('-', "_"));
        let of = |shape: Shape| keys().any(|key| key.shape == shape && key.is_called(&name));
        let is_value = |word: &OsString| {
            let text = word.to_string_lossy().to_lowercase();
            let is_recipe = [".toml", ".py"].iter().any(|ending| text.ends_with(ending));
            !text.starts_with('-') && !is_recipe && !Path::new(word).is_file()
        };
        let truth = |word: &OsString| word.to_str()?.to_lowercase().parse::<bool>().ok();
        let is_repeated = of(Shape::Repeated);
        match words.peek().and_then(truth).filter(|_| value.is_none()) {
            Some(truth) if of(Shape::Switch) => {
                words.next();
                spread.push(format!("{flag}={truth}").into());
            }
            Some(truth) if published::is_switch(&name) => {
                words.next();
                spread.extend(truth.then_some(word));
            }
            _ => {
                let is_open = value.is_none();
                spread.push(word);
                if is_repeated {
                    spread.extend(is_open.then(|| words.next()).flatten());
                    while let Some(value) = words.next_if(is_value) {
                        spread.extend([flag.clone().into(), value]);
                    }
                }
            }
        }
    }
    spread
}

/// Prints help, the version or a mistake, and ends the process.
fn end(error: &clap::Error) -> ! {
    output::note(error.print());
    let code = match (error.exit_code(), output::end()) {
        (0, Err(error)) => {
            eprintln!("error: {error}");
            Exit::Output as i32
        }
        (code, _) => code,
    };
    std::process::exit(code)
}

/// A mistake as `clap` words it, but for suggestions of flags that are refused, and of those that stand for another word.
fn sound(mut error: clap::Error, trains: bool) -> clap::Error {
    let is_refused = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => published::is_refused(flag.trim_start_matches('-')),
        _ => false,
    };
    let typed = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.trim_start_matches('-').replace('-', "_"),
        _ => String::new(),
    };
    let meant = MEANT.into_iter().find(|(name, _)| *name == typed);
    // Only training has settings of a method, and no command else a flag of one.
    let setting = published::setting_called(&typed).filter(|_| trains);
    if let Some(setting) = setting {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--set {setting}=VALUE")));
    } else if let Some((_, flag)) = meant.filter(|(_, flag)| keys().any(|key| key.is_called(flag))) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{flag}")));
    } else if is_refused {
        error.insert(ContextKind::SuggestedArg, ContextValue::None);
    }
    error
}

/// What people type of other tools for a setting, where another flag is spelled more like it.
const MEANT: [(&str, &str); 5] = [
    ("lr", "learning_rate"),
    ("precision", "mixed_precision"),
    ("instance_data_dir", "train_data_dir"),
    ("data_dir", "train_data_dir"),
    ("optim", "optimizer_type"),
];

/// Flags by the names they had, and by those they have.
const RENAMED: [(&str, &str); 3] =
    [("n_pictures", "n_images"), ("share", "shard"), ("workers", "dataloader_num_workers")];

/// The whole grammar, every name with `_` also with `-`.
pub fn command() -> clap::Command {
    // The last of two wins, as in the published scripts.
    let lenient = |command: clap::Command| command.args_override_self(true).mut_args(forgiving);
    Cli::command()
        .mut_subcommand("train", lenient)
        .mut_subcommand("demo", lenient)
        .mut_subcommand("pretrain", lenient)
        .mut_subcommand("sample", |command| lenient(command.after_help(sample::samplers())))
        .mut_subcommand("compare", |command| lenient(command.after_help(compare::DEFAULTS)))
        .mut_subcommand("score", |score| score.mut_args(forgiving))
        .mut_subcommand("accuracy", lenient)
        .mut_subcommand("watch", lenient)
        .mut_subcommand("curate", lenient)
        .mut_subcommand("vote", |vote| lenient(vote).mut_subcommands(lenient))
        .mut_subcommand("data", |data| data.mut_subcommands(lenient))
        .mut_subcommand("model", |model| {
            ["convert", "merge", "verify"]
                .into_iter()
                .fold(model, |model, name| model.mut_subcommand(name, lenient))
        })
}

/// Flags that every command knows by either name.
const TWINS: [(&str, &str); 2] = [("model", "pretrained_model_name_or_path"), ("out", "output_dir")];

fn forgiving(arg: clap::Arg) -> clap::Arg {
    let known: Vec<String> = names(&arg).collect();
    let twins = TWINS.into_iter().flat_map(|(ours, published)| [(ours, published), (published, ours)]);
    let twins =
        twins.filter(|(name, twin)| known.iter().any(|n| n == name) && !known.iter().any(|n| n == twin));
    let arg = arg.aliases(twins.map(|(_, twin)| twin).collect::<Vec<_>>());
    let renamed = RENAMED
        .into_iter()
        .filter(|(old, new)| known.iter().any(|name| name == new) && !known.iter().any(|name| name == old));
    let arg = arg.aliases(renamed.map(|(old, _)| old).collect::<Vec<_>>());
    let known: Vec<String> = names(&arg).collect();
    let dashed = known.iter().map(|name| name.replace('_', "-")).filter(|name| !known.contains(name));
    let arg = arg.aliases(dashed.collect::<Vec<_>>());
    // A negative learning rate is for the plan to refuse, together with whatever else is wrong.
    let takes_value = arg.get_action().takes_values() && !arg.is_positional();
    if takes_value { arg.allow_negative_numbers(true) } else { arg }
}

fn names(arg: &clap::Arg) -> impl Iterator<Item = String> {
    let others = arg.get_all_aliases().unwrap_or_default();
    arg.get_long().into_iter().chain(others).map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn several_values_and_values_of_switches_are_taken_as_published_scripts_take_them() {
        for (typed, wanted) in [
            ("--validation_prompts a b --seed 1", "--validation_prompts a --validation_prompts b --seed 1"),
            (
                "--validation-prompt=a b c",
                "--validation-prompt=a --validation-prompt b --validation-prompt c",
            ),
            ("--validation_prompts a run.toml", "--validation_prompts a run.toml"),
            ("--validation_prompts a b train.py", "--validation_prompts a --validation_prompts b train.py"),
            ("--no_hflip false --scale_lr True", "--no_hflip=false --scale_lr=true"),
            ("--no-hflip run.toml", "--no-hflip run.toml"),
            ("--use_8bit_adam False --use_ema true --sdpa", "--use_ema --sdpa"),
            ("--seed 1 --output_dir true", "--seed 1 --output_dir true"),
        ] {
            let line = |typed: &str| {
                ["tastemaker", "train"].into_iter().chain(typed.split(' ')).map(OsString::from).collect()
            };
            let (typed, wanted): (Vec<OsString>, Vec<OsString>) = (line(typed), line(wanted));
            assert_eq!(spread(typed), wanted);
        }
        let other: Vec<OsString> = ["tastemaker", "sample", "--prompt", "a", "true"].map(Into::into).into();
        assert_eq!(spread(other.clone()), other);
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        for flag in ["--learning_rate", "--learning-rate"] {
            let line = ["tastemaker", "train", flag, "1e-4"].map(OsString::from);
            let matches = command().try_get_matches_from(line).unwrap();
            let train = matches.subcommand_matches("train").unwrap();
            assert_eq!(train.get_one::<serde_json::Value>("learning_rate"), Some(&1e-4.into()), "{flag}");
        }
    }
}
