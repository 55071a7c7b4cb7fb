//! `tastemaker data convert`: the same pairs in another layout.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_data::skipped::in_words;
use tastemaker_data::write::{WRITERS, Written};
use tastemaker_data::{PairSource, exclusions};
use tastemaker_math::nearest::{did_you_mean, nearest};

use crate::exit::UsageError;
use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::place::{OverwriteFlag, Place};
use crate::progress::{Work, counted};

/// Writes the pairs of a set in another layout, with images copied byte for byte. Rows that are not pairs, and those with an image
/// that does not decode, are skipped and counted.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Pairs: a folder or file in any layout of docs/guide/data.md, DIR/train-* for some of its files, its URL, or the name
    /// of a fetched dataset.
    from: String,
    /// Output folder.
    to: PathBuf,
    /// Layout to write: pick-a-pic, parquet shards with its columns; jsonl, a folder of images with a list.
    #[arg(long = "to", value_name = "NAME", default_value = "pick-a-pic")]
    layout: String,
    /// List of rows to skip or to correct, as written by `tastemaker data check --fix` and `tastemaker curate` [default: none]
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    overwrite: OverwriteFlag,
}

/// What the command writes into its folder.
const OURS: &[&str] = &["data/*.parquet", "metadata.jsonl", "images/#/*"];

/// Runs the command.
pub fn convert(args: &ConvertArgs) -> Result<()> {
    let ConvertArgs { from, to, layout, exclude, reading, overwrite } = args;
    let place = Place::folder(to, "folder", OURS);
    let _claim = place.claim(*overwrite)?;
    let names = || WRITERS.iter().map(|writer| writer.name);
    let writer = WRITERS.iter().find(|writer| writer.name == layout).ok_or_else(|| {
        let wanted = names().collect::<Vec<_>>().join(" or ");
        UsageError(format!("--to {layout}{}; wanted {wanted}", did_you_mean(nearest(layout, names()))))
    })?;
    let mut set = pairs::open(from, Part::default(), &reading.settings()?)?;
    if let Some(list) = exclude {
        exclusions::apply(list, &mut set)?;
    }
    let (mut work, mut done) = (Work::new("writing", "pairs"), 0);
    let written = (writer.write)(&set, to, &mut || {
        done += 1;
        work.at(done, set.len() as u64);
    });
    work.end();
    let Written { n_pairs, skipped: undecoded } = written?;
    place.done()?;
    println!("wrote {}: {}, {}", to.display(), counted(n_pairs as u64, "pair"), writer.makes);
    let skipped = [set.skipped(), &undecoded].concat();
    if !skipped.is_empty() {
        println!("skipped: {}", in_words(&skipped));
        pairs::name_skipped(&set, &skipped);
    }
    next::say(&["tastemaker", "data", "check", &next::word(to)]);
    Ok(())
}
