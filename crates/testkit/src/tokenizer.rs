//! The CLIP tokenizer folders and the prompts recorded with them.

use std::path::Path;

use serde_json::Value;

use crate::golden::{copy, golden_dir, text};

/// Writes a complete tokenizer folder: `"tokenizer"` pads with the end token, `"tokenizer_2"` with `!`.
///
/// The two share one vocabulary in `golden/`, so the folder is put together here.
///
/// # Panics
/// When a file cannot be read or written.
#[track_caller]
pub fn tokenizer_dir(which: &str, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let golden = golden_dir("tokenizer", "");
    for shared in ["vocab.json", "merges.txt"] {
        copy(&golden.join(shared), &folder.join(shared));
    }
    for own in ["tokenizer_config.json", "special_tokens_map.json"] {
        copy(&golden.join(which).join(own), &folder.join(own));
    }
}

/// The prompts whose ids are recorded, in the order of the rows of `tokenizer.input_ids` and `tokenizer_2.input_ids`
/// (`Golden::load("tokenizer", "")`).
///
/// # Panics
/// When `prompts.json` is not an object of lists of strings.
#[track_caller]
pub fn tokenizer_prompts() -> Vec<String> {
    let groups: Value =
        serde_json::from_str(&text(&golden_dir("tokenizer", "prompts.json"))).expect("prompts.json");
    let groups = groups.as_object().expect("prompts.json holds groups by name");
    let prompts = groups.values().flat_map(|group| group.as_array().expect("a group is a list"));
    prompts.map(|prompt| prompt.as_str().expect("a prompt is a string").to_owned()).collect()
}
