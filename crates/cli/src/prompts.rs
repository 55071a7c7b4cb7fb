//! What `--prompts` names: one way to find it, for all commands.

use anyhow::Result;
use tastemaker_demo::prompts as demo;
use tastemaker_generate::prompts::{self, PromptSet};

use crate::hub::locate_dataset;

/// The set of this name: one that is built in, a fetched one, or a file or folder.
///
/// # Errors
/// What [`prompts::read`] says; an unknown task of the demo.
pub fn find(name: &str) -> Result<PromptSet> {
    if let Some(captions) = demo::captions(name)? {
        return Ok(PromptSet::new(name, captions.into_iter().map(|caption| (caption, None))));
    }
    Ok(match (name, name.strip_prefix("demo:")) {
        ("small", _) => PromptSet::small()?,
        ("demo", _) => demo::held_out()?,
        (_, Some(task)) => demo::samples(task, 0)?.set,
        _ => prompts::read(locate_dataset(name)?.unwrap_or_else(|| name.into()))?,
    })
}

/// Its prompts, without their categories.
///
/// # Errors
/// As [`find`].
pub fn texts(name: &str) -> Result<Vec<String>> {
    Ok(find(name)?.prompts.into_iter().map(|prompt| prompt.text).collect())
}
