//! The prompts recorded with CLIP's tokenizers.

use serde_json::Value;

use crate::golden::{golden_dir, text};

/// The prompts whose ids are recorded, in the order of the rows of `tokenizer.input_ids` and `tokenizer_2.input_ids`
/// (`Golden::load("tokenizer", "")`).
///
/// # Panics
/// When `prompts.json` is not an object of lists of strings.
#[track_caller]
pub fn tokenizer_prompts() -> Vec<String> {
    recorded_prompts("tokenizer")
}

/// The awkward prompts of an area under `golden/`, in the order of their groups.
///
/// # Panics
/// When the file is missing or malformed.
#[track_caller]
pub fn recorded_prompts(area: &str) -> Vec<String> {
    let groups: Value = serde_json::from_str(&text(&golden_dir(area, "prompts.json"))).expect("prompts.json");
    let groups = groups.as_object().expect("prompts.json holds groups by name");
    let prompts = groups.values().flat_map(|group| group.as_array().expect("a group is a list"));
    prompts.map(|prompt| prompt.as_str().expect("a prompt is a string").to_owned()).collect()
}
