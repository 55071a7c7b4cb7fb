//! `tastemaker model fetch`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_hub::{RepoId, Selection};

use crate::commands::fetching;

/// Fetches a model from the Hugging Face Hub into its cache, and prints its folder.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The model, as its page on the Hub is called
    #[arg(value_name = "ORG/NAME")]
    repo: String,
    /// A branch, a tag or a commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Which weights to take where there are several, such as fp16; without it, those of no variant
    #[arg(long, value_name = "VARIANT", conflicts_with = "include")]
    variant: Option<String>,
    /// Fetch the files that fit, instead of those of a pipeline; * stands for any characters, ? for one; repeat for several
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// The cache; without it, that of the Hub's own tools
    #[arg(long = "cache-dir", alias = "cache_dir", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub fn fetch(args: &FetchArgs) -> Result<()> {
    let selection = match args.include.as_slice() {
        [] => Selection::Pipeline { variant: args.variant.clone() },
        patterns => Selection::Matching(patterns.to_vec()),
    };
    fetching::fetch(&RepoId::model(&args.repo)?, &args.revision, args.cache_dir.as_deref(), &selection)
}
