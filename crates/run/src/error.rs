//! What can be wrong with a recipe or a run folder, and what is merely suspicious.

use std::fmt;
use std::path::PathBuf;

use tastemaker_math::objectives::SettingsError;
use tastemaker_store::StoreError;

/// What went wrong; underlying reasons are in [`source`](std::error::Error::source), so print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A recipe is not TOML, has a key we do not know, or a value of the wrong type.
    #[error("{}, line {line}: {message}", .path.display())]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What was found, what was wanted.
        message: String,
    },
    /// Values that are missing or cannot be, all of them.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
    /// The method does not exist or does not have these settings.
    #[error("the settings of [method] are wrong")]
    Method(#[from] SettingsError),
    /// The output folder holds something that is not a run of ours.
    #[error("{} is not empty and holds no run; choose another output_dir", .path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is at work in the output folder.
    #[error(
        "{} is in use by another process; wait until that has ended, or choose another output_dir", .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds a run with another plan.
    #[error("{} holds a run with another plan ({}); choose another output_dir", .path.display(), .differences.join("; "))]
    OtherPlan {
        /// The folder.
        path: PathBuf,
        /// Each key that differs, as `key: there -> here`.
        differences: Vec<String>,
    },
    /// The plan of a run is not what was written.
    #[error(
        "{} is damaged: {found}; remove it, and the command that trained this run, with --resume_from_checkpoint latest, writes it \
         again", .path.display()
    )]
    DamagedPlan {
        /// The plan.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// An image for the board is not a PNG file.
    #[error("the image {tag} does not begin as a PNG file does; give the bytes of one")]
    Image {
        /// Where it was to be shown.
        tag: String,
    },
    /// A file of a run was written by a version we do not read, or damaged.
    #[error("{}, line {line}: found {found}; wanted {wanted}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
}

/// One value that is missing or cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nothing says it.
    Missing {
        /// The flag that would.
        flag: &'static str,
        /// A value it could have; empty where none is typical.
        example: &'static str,
    },
    /// It cannot have this value.
    Value {
        /// The key, with its section: `optimizer.learning_rate`.
        key: &'static str,
        /// The value as typed, or `nothing`.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
}

/// Values of what a run cannot do without.
const EXAMPLES: [(&str, &str); 5] = [
    ("method", "diffusion-dpo"),
    ("pretrained_model_name_or_path", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ("train_data_dir", "pairs"),
    ("output_dir", "aligned"),
    ("max_train_steps", "1000"),
];

impl Problem {
    /// The key with its section, or the flag that is missing.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Missing { flag, .. } => flag,
            Self::Value { key, .. } => key,
        }
    }

    /// That this flag, or a key of its name, is missing.
    pub fn missing(flag: &'static str) -> Self {
        let example = EXAMPLES.iter().find(|(name, _)| *name == flag).map_or("", |(_, example)| example);
        Self::Missing { flag, example }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { flag, example: "" } => write!(f, "missing --{flag}"),
            Self::Missing { flag, example } => write!(f, "missing --{flag} (for example {example})"),
            Self::Value { key, found, wanted } => write!(f, "{key} is {found}, wanted {wanted}"),
        }
    }
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// Something allowed that is probably mistaken. Nothing is changed because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The method's own doubt about its settings.
    Method(String),
    /// A key was typed that changes nothing in this run.
    NoEffect {
        /// The key, with its section.
        key: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// Another method was asked for than the recipe's, so the recipe's settings were skipped.
    SettingsSkipped {
        /// The recipe's method.
        recipe: String,
        /// The method of this run.
        asked: String,
    },
    /// A key or flag was typed by the name that it had in earlier versions.
    Renamed {
        /// That name.
        old: String,
        /// The name of now.
        new: String,
    },
    /// Warm-up lasts as long as training: the learning rate never reaches its value.
    WarmupNeverEnds {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps of training.
        training: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(doubt) => f.write_str(doubt),
            Self::NoEffect { key, reason } => write!(f, "{key} has no effect: {reason}"),
            Self::SettingsSkipped { recipe, asked } => {
                write!(
                    f,
                    "the recipe's settings are for {recipe} and were skipped, because the method is {asked}"
                )
            }
            Self::Renamed { old, new } => write!(f, "{old} -> {new}"),
            Self::WarmupNeverEnds { warmup, training } => {
                write!(
                    f,
                    "warm-up lasts {warmup} of {training} steps: the learning rate never reaches its value"
                )
            }
        }
    }
}
