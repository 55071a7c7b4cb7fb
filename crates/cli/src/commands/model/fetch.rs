//! `tastemaker model fetch`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_hub::{RepoId, Selection};

use crate::commands::fetching;

/// Fetches a model from the Hugging Face Hub into its cache, and prints its folder.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Hub id, ORG/NAME
    #[arg(value_name = "ORG/NAME")]
    repo: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Weights variant to fetch, such as fp16 [default: none]
    #[arg(long, value_name = "VARIANT", conflicts_with = "include")]
    variant: Option<String>,
    /// Fetch only files that match, * any characters, ? one; repeat for several [default: the files of the pipeline]
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
        return fetching::verify(&RepoId::model(&args.repo)?, &args.revision, args.cache_dir.as_deref());
    }
    let selection = match args.include.as_slice() {
        [] => Selection::Pipeline { variant: args.variant.clone() },
        patterns => Selection::Matching(patterns.to_vec()),
    };
    fetching::fetch(&RepoId::model(&args.repo)?, &args.revision, args.cache_dir.as_deref(), &selection)
}
