//! `tastemaker data fetch`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_hub::{RepoId, Selection};

use crate::commands::fetching;

/// Fetches a dataset from the Hugging Face Hub into its cache, and prints its folder.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Hub id, ORG/NAME
    #[arg(value_name = "ORG/NAME")]
    repo: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Only the files of this config, a folder of the dataset [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "include")]
    config: Option<String>,
    /// Only the files of this split, such as train or validation [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "include")]
    split: Option<String>,
    /// Fetch only files that match, * any characters, ? one; repeat for several [default: data files and the card]
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Cache folder [default: HF_HUB_CACHE or ~/.cache/huggingface/hub]
    #[arg(long = "cache-dir", alias = "cache_dir", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Compare all fetched files with their checksums, and fetch nothing
    #[arg(long, conflicts_with = "include")]
    verify: bool,
}

/// Runs the command.
pub fn fetch(args: &FetchArgs) -> Result<()> {
    if args.verify {
        return fetching::verify(&RepoId::dataset(&args.repo)?, &args.revision, args.cache_dir.as_deref());
    }
    let selection = match args.include.as_slice() {
        [] => Selection::Data { config: args.config.clone(), split: args.split.clone() },
        patterns => Selection::Matching(patterns.to_vec()),
    };
    fetching::fetch(&RepoId::dataset(&args.repo)?, &args.revision, args.cache_dir.as_deref(), &selection)
}
