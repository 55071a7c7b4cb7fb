//! What `--prompts` names: one way to find it, for all commands.

use anyhow::Result;
use tastemaker_demo::prompts as demo;
use tastemaker_generate::prompts::{self, Prompt, PromptSet};

use crate::hub::locate_dataset;
use crate::progress::counted;
use crate::scoring::report;

/// The set of this name: one that is built in, a fetched one, or a file or folder. Rows that are skipped are printed.
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
        _ => {
            let set = prompts::read(locate_dataset(name)?.unwrap_or_else(|| name.into()))?;
            let rows = counted(set.skipped.len() as u64, "malformed row");
            report(&format!("{rows} of {name}"), &set.skipped.values().cloned().collect::<Vec<_>>());
            set
        }
    })
}

/// A prompt and its number in its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Which also counts rows that are skipped, so that it stays the same when they are mended.
    pub number: usize,
    /// What to generate.
    pub text: String,
}

/// The prompts of a set, without their categories, numbered from `first` on.
///
/// # Errors
/// As [`find`].
pub fn texts(name: &str, first: usize) -> Result<Vec<Numbered>> {
    let numbered =
        |(number, prompt): (usize, &Prompt)| Numbered { number: first + number, text: prompt.text.clone() };
    Ok(find(name)?.used().map(numbered).collect())
}
