//! `tastemaker model`: one file per command.

mod fetch;

use anyhow::Result;
use clap::Subcommand;

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Fetch a model from the Hugging Face Hub into its cache.
    Fetch(fetch::FetchArgs),
}

/// Runs the command.
pub fn model(command: &ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Fetch(args) => fetch::fetch(args),
    }
}
