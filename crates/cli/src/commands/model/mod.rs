//! `tastemaker model`: one file per command.

mod convert;
mod fetch;
mod inspect;
mod merge;
mod opened;
mod verify;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::UsageError;

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Print what a model or an adapter is.
    Inspect(inspect::InspectArgs),
    /// Write the same weights in another layout.
    Convert(convert::ConvertArgs),
    /// Add a LoRA to its model.
    Merge(merge::MergeArgs),
    /// Compare with what another program computed.
    Verify(verify::VerifyArgs),
    /// Fetch a model from the Hugging Face Hub into its cache.
    Fetch(fetch::FetchArgs),
}

/// Runs the command.
pub fn model(command: &ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Inspect(args) => inspect::inspect(args),
        ModelCommand::Convert(args) => convert::convert(args),
        ModelCommand::Merge(args) => merge::merge(args),
        ModelCommand::Verify(args) => verify::run(args),
        ModelCommand::Fetch(args) => fetch::fetch(args),
    }
}

/// Refuses to write where something is.
fn must_be_new(path: &Path) -> Result<(), UsageError> {
    if path.exists() {
        return Err(UsageError(format!("{} is already there; name a place that is not", path.display())));
    }
    Ok(())
}
