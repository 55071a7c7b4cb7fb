//! The run that a set is checked for.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tastemaker_run::{Plan, Recipe, resolve_over};

use super::check::CheckArgs;
use crate::commands::train::{defaults, read_recipe};

/// Captions that are held out where neither a recipe nor a flag says how many.
const HELD_OUT_FRACTION: f64 = 0.05;

/// A run, as far as it decides about rows.
pub struct CheckedRun {
    /// What of it matters is as it would be trained; the rest is made up.
    pub plan: Plan,
    /// The recipe, where there is one.
    pub recipe: Option<PathBuf>,
}

impl CheckedRun {
    /// The run of a recipe, or of flags alone.
    ///
    /// # Errors
    /// What is wrong with the recipe.
    pub fn of(args: &CheckArgs) -> Result<Self> {
        let typed = Path::new(&args.set);
        let is_recipe = typed.is_file() && typed.extension().is_some_and(|ending| ending == "toml");
        let recipe = is_recipe.then(|| read_recipe(typed)).transpose()?;
        let mut flags = Recipe { data: args.reading.section(), ..Recipe::default() };
        flags.data.resolution = args.resolution;
        flags.data.held_out_fraction = args.held_out_fraction;
        flags.data.exclude.clone_from(&args.exclude);
        flags.train.seed = args.seed;
        flags.model.max_token_length = args.max_token_length;
        flags.method.name.clone_from(&args.method);
        // What a run must say and does not matter here.
        let mut fallback = Recipe { output_dir: Some("run".into()), ..Recipe::default() };
        fallback.method.name = Some("diffusion-dpo".into());
        fallback.model.pretrained_model_name_or_path = Some("model".into());
        fallback.train.max_train_steps = Some(1);
        if recipe.is_none() {
            flags.data.train_data_dir = Some(args.set.clone());
            fallback.data.held_out_fraction = Some(HELD_OUT_FRACTION);
        }
        let of_recipe = recipe.clone().unwrap_or_default();
        let fallback = defaults::of_model(&flags, &of_recipe).over(fallback);
        let plan = resolve_over(of_recipe, flags, fallback)?;
        Ok(Self { plan, recipe: recipe.map(|_| typed.to_owned()) })
    }

    /// What of it decides, in words.
    pub fn in_words(&self, args: &CheckArgs) -> String {
        let Plan { data, train, model, .. } = &self.plan;
        let is_typed = args.held_out_fraction.is_some()
            || args.resolution.is_some()
            || args.seed.is_some()
            || args.max_token_length.is_some();
        let source = match &self.recipe {
            Some(recipe) => format!(" ({})", recipe.display()),
            None if is_typed => String::new(),
            None => " (defaults; give the recipe of a run in place of the set, or these flags)".to_owned(),
        };
        format!(
            "checked for resolution {}, held_out_fraction {}, seed {}, max_token_length {}{source}",
            data.resolution, data.held_out_fraction, train.seed, model.max_token_length
        )
    }
}
