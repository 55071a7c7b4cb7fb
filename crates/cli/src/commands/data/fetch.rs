//! `tastemaker data fetch`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_hub::{RepoId, Selection};

use crate::commands::fetching;

/// Fetches a dataset from the Hugging Face Hub into its cache, and prints its folder.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The dataset on the Hub
    #[arg(value_name = "ORG/NAME")]
    repo: String,
    /// A branch, a tag or a commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Only the files of this configuration, a folder of the dataset
    #[arg(long, value_name = "NAME", conflicts_with = "include")]
    config: Option<String>,
    /// Only the files of this split, such as train or validation
    #[arg(long, value_name = "NAME", conflicts_with = "include")]
    split: Option<String>,
    /// Fetch files whose names match, instead of those that hold data; * stands for any characters, ? for one; repeatable
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// The cache [default: that of the Hub's own tools]
    #[arg(long = "cache-dir", alias = "cache_dir", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub fn fetch(args: &FetchArgs) -> Result<()> {
    let selection = match args.include.as_slice() {
        [] => Selection::Data { config: args.config.clone(), split: args.split.clone() },
        patterns => Selection::Matching(patterns.to_vec()),
    };
    fetching::fetch(&RepoId::dataset(&args.repo)?, &args.revision, args.cache_dir.as_deref(), &selection)
}
