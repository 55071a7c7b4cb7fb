//! Scorers by the names people type.

use anyhow::Result;
use tastemaker_eval::scorers::{Panel, SCORERS, Scorer, nearest_art};

use crate::demo::judge::ArtJudge;
use crate::exit::UsageError;

/// Opens scorers typed as `NAME`, `NAME:VARIANT` or `NAME=WEIGHTS`.
///
/// # Errors
/// [`UsageError`] for a name that is no scorer's; whatever keeps its weights from being read.
pub fn open(typed: &[String]) -> Result<Panel> {
    let scorers = typed.iter().map(|typed| open_one(typed)).collect::<Result<Vec<_>>>()?;
    Ok(Panel::new(scorers))
}

fn open_one(typed: &str) -> Result<Box<dyn Scorer>> {
    let name_end = typed.find([':', '=']).unwrap_or(typed.len());
    let (name, rest) = typed.split_at(name_end);
    if name == nearest_art::ENTRY.name {
        return Ok(Box::new(ArtJudge::open(rest.strip_prefix(':'))?));
    }
    let known: Vec<&str> = SCORERS.iter().map(|entry| entry.name).collect();
    Err(UsageError(format!("no scorer is called `{name}`; there are {}", known.join(", "))).into())
}
