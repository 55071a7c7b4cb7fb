//! What is meant where nothing is typed and it depends on something else: on the model, or on the run that is resumed.

use std::path::Path;

use tastemaker_run::{Plan, Recipe, RunDir};

use crate::models::whole;

/// The resolution that the model of a recipe and flags was made for, if it is there.
pub fn of_model(typed: &Recipe, below: &Recipe) -> Recipe {
    let mut recipe = Recipe::default();
    let of = |get: fn(&Recipe) -> &Option<String>| get(typed).as_deref().or(get(below).as_deref());
    let name = of(|recipe| &recipe.model.pretrained_model_name_or_path);
    let revision = of(|recipe| &recipe.model.revision);
    let model = name.and_then(|name| whole(name, revision));
    let side = model.and_then(|model| model.made_for().ok());
    recipe.data.resolution = side.filter(|side| side.is_multiple_of(8) && *side > 0);
    recipe
}

/// The plan of the run in this folder, which is to be resumed.
pub fn earlier(output_dir: Option<&Path>) -> Option<Plan> {
    RunDir::open(output_dir?).ok().map(|(_, plan)| plan)
}

/// What a resumed run keeps of its own, whatever defaults have become since: its resolution and which pairs it holds out.
pub fn of_earlier(plan: &Plan) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.data.resolution = Some(plan.data.resolution);
    recipe.data.held_out_fraction = Some(plan.data.held_out_fraction);
    recipe.data.held_out_choice = Some(plan.data.held_out_choice);
    recipe
}
