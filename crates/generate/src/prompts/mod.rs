//! Sets of prompts, as evaluations share them.

mod columns;
mod read;
mod select;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tastemaker_store::checksum::sha256_bytes;

pub use read::{HPS_STYLES, read};
pub use select::select;

use crate::GenerateError;

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// What tells it from others of its set: its number counted from 0, or `<style>/<five digits>` as HPSv2's benchmark names
    /// images.
    pub id: String,
    /// What to generate.
    pub text: String,
    /// What it is about, where the set says so.
    pub category: Option<String>,
}

/// Prompts in the order of their numbers, which count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSet {
    /// What it is called.
    pub name: String,
    /// The prompts. One without text stands for a row that is skipped, so that a number is that of the row whether or not others are
    /// malformed.
    pub prompts: Vec<Prompt>,
    /// Why rows are skipped, by their numbers.
    pub skipped: BTreeMap<usize, String>,
    /// Rows that were read, those without a prompt and those skipped as repeated included.
    pub n_rows: usize,
}

impl PromptSet {
    /// A set of texts with categories, numbered in this order.
    pub fn new(name: &str, rows: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let numbered = rows.into_iter().enumerate();
        let prompts: Vec<Prompt> = numbered
            .map(|(number, (text, category))| Prompt { id: number.to_string(), text, category })
            .collect();
        Self { name: name.to_owned(), n_rows: prompts.len(), prompts, skipped: BTreeMap::new() }
    }

    /// The prompts without those that are skipped, with their numbers.
    pub fn used(&self) -> impl Iterator<Item = (usize, &Prompt)> {
        self.prompts.iter().enumerate().filter(|(number, _)| !self.skipped.contains_key(number))
    }

    /// The built-in set: prompts of everyday kinds, ours, free for any use.
    ///
    /// # Errors
    /// Never, unless the set was damaged before it was built in.
    pub fn small() -> Result<Self, GenerateError> {
        read::built_in("small", include_str!("small.tsv"))
    }

    /// The categories, in order of appearance, with how many prompts each has.
    pub fn categories(&self) -> Vec<(&str, usize)> {
        let mut counted: Vec<(&str, usize)> = Vec::new();
        for category in self.prompts.iter().filter_map(|prompt| prompt.category.as_deref()) {
            match counted.iter_mut().find(|(known, _)| *known == category) {
                Some((_, n)) => *n += 1,
                None => counted.push((category, 1)),
            }
        }
        counted
    }

    /// SHA-256 over prompts and categories, hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut all = Vec::new();
        for prompt in &self.prompts {
            for part in [&prompt.id, &prompt.text, prompt.category.as_ref().unwrap_or(&String::new())] {
                all.extend((part.len() as u64).to_le_bytes());
                all.extend(part.as_bytes());
            }
        }
        sha256_bytes(&all)
    }

    /// How many prompts of how many kinds, and what became of the other rows.
    pub fn summary(&self) -> String {
        let (n, n_skipped) = (self.used().count(), self.skipped.len());
        let mut said = format!("{n} {}", if n == 1 { "prompt" } else { "prompts" });
        match self.categories().len() {
            0 => {}
            1 => said += " in one category",
            n => said += &format!(" in {n} categories"),
        }
        if self.n_rows > n + n_skipped {
            said += &format!(" out of {} rows, the others being repeated or empty", self.n_rows - n_skipped);
        }
        let distinct: std::collections::HashSet<&str> =
            self.used().map(|(_, prompt)| prompt.text.as_str()).collect();
        if distinct.len() < n {
            said += &format!(", {} of which repeat an earlier one", n - distinct.len());
        }
        if n_skipped > 0 {
            said += &format!("; {n_skipped} malformed, skipped");
        }
        said
    }
}
