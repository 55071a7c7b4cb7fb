//! `tastemaker data convert`: the same pairs in another layout.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tastemaker_data::PairSource;
use tastemaker_data::skipped::in_words;
use tastemaker_data::write::WRITERS;
use tastemaker_math::nearest::{did_you_mean, nearest};

use crate::exit::UsageError;
use crate::pairs::{self, Part, ReadingFlags};

/// Writes the pairs of a set in another layout, images byte for byte as they are. Rows that are no pairs are skipped and
/// counted.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The pairs: a folder or file in any layout of docs/guide/data.md, DIR/train-* for some files of one, an address, or the
    /// name of a fetched dataset.
    from: String,
    /// The folder to write.
    to: PathBuf,
    /// Layout to write: pick-a-pic, parquet shards with its columns; jsonl, a folder of images with a list.
    #[arg(long = "to", value_name = "NAME", default_value = "pick-a-pic")]
    layout: String,
    #[command(flatten)]
    reading: ReadingFlags,
}

/// Runs the command.
pub fn convert(args: &ConvertArgs) -> Result<()> {
    let ConvertArgs { from, to, layout, reading } = args;
    let names = || WRITERS.iter().map(|writer| writer.name);
    let writer = WRITERS.iter().find(|writer| writer.name == layout).ok_or_else(|| {
        let wanted = names().collect::<Vec<_>>().join(" or ");
        UsageError(format!("--to {layout}{}; wanted {wanted}", did_you_mean(nearest(layout, names()))))
    })?;
    let set = pairs::open(from, Part::default(), &reading.settings()?)?;
    let bar = ProgressBar::new(set.len() as u64);
    bar.set_style(ProgressStyle::with_template("writing {wide_bar} {pos}/{len} pairs, {eta} left")?);
    let written = (writer.write)(&set, to, &mut || bar.inc(1));
    bar.finish_and_clear();
    written?;
    println!("wrote {}: {} pairs, {}", to.display(), set.len(), writer.makes);
    if !set.skipped().is_empty() {
        println!("skipped: {}", in_words(set.skipped()));
    }
    Ok(())
}
