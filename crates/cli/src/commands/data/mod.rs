//! `tastemaker data`: one file per command.

pub mod cache;
mod check;
mod checked_run;
mod convert;
mod doubts;
mod fetch;
mod pairs;
mod relabel;
mod scoring;

use anyhow::Result;
use clap::Subcommand;

/// What to do with pairs.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Fetch a dataset from the Hugging Face Hub into its cache.
    Fetch(fetch::FetchArgs),
    /// Check every row of a set before training on it.
    Check(check::CheckArgs),
    /// Write the same pairs in another layout.
    Convert(convert::ConvertArgs),
    /// Generate images for prompts and make pairs from them.
    Pairs(Box<pairs::PairsArgs>),
    /// Compare the labels of a set with those of scorers, and write theirs in their place.
    Relabel(relabel::RelabelArgs),
    /// Encode the pairs of a run before training, or verify the cache.
    Cache(Box<cache::CacheArgs>),
}

/// Runs the command.
pub fn data(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Fetch(args) => fetch::fetch(&args),
        DataCommand::Check(args) => check::check(&args),
        DataCommand::Convert(args) => convert::convert(&args),
        DataCommand::Pairs(args) => pairs::pairs(&args),
        DataCommand::Relabel(args) => relabel::relabel(&args),
        DataCommand::Cache(args) => cache::cache(*args),
    }
}
