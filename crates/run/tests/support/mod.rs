//! The shortest recipe, and how tests read one.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

use std::path::Path;

use tastemaker_run::{Overrides, Plan, Recipe, RunError, resolve};

pub const SHORTEST: &str = r#"
output_dir = "out"

[model]
pretrained_model_name_or_path = "models/tiny"

[data]
train_data_dir = "pairs"

[method]
name = "diffusion-dpo"

[train]
max_train_steps = 100
"#;

pub fn parse(text: &str) -> Result<Recipe, RunError> {
    Recipe::parse(Path::new("dpo.toml"), text)
}

pub fn plan_of(text: &str) -> Plan {
    resolve(parse(text).unwrap(), Overrides::default()).unwrap()
}

/// The shortest recipe with lines appended; TOML lets a dotted key add to a table only before its header, so
/// sections are whole.
pub fn shortest_with(more: &str) -> String {
    format!("{SHORTEST}{more}")
}
