//! `tastemaker vote export`: votes in the layouts of others.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use tastemaker_data::formats::OpenSettings;
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_web::results::{EXPORTS, export as export_as};
use tastemaker_web::study::{ImageSource, of_pairs, of_places};
use tastemaker_web::vote::Record;

use crate::exit::UsageError;
use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::place::{OverwriteFlag, Place, Written, first_line};
use crate::progress::counted;

/// Writes the votes about one question in a layout of others.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct ExportArgs {
    /// Database of the votes
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
    /// Layout: pick-a-pic, jsonl (pairs with labels and soft labels), hpd (rankings), scores (a score for each image), votes
    #[arg(long, value_name = "NAME", default_value = "pick-a-pic")]
    to: String,
    /// The question [default: the first]
    #[arg(long, value_name = "NAME")]
    question: Option<String>,
    /// Output folder; for votes, a file
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    #[command(flatten)]
    reading: ReadingFlags,
}

/// The file of votes.
const VOTES: Written = Written { what: "votes", is: |path| first_line(path, &["voter", "prompt"]) };

/// What the command writes into its folder.
const OURS: &[&str] = &["data/*.parquet", "metadata.jsonl", "metadata.json", "scores.jsonl", "images/*"];

/// Runs the command.
pub fn export(args: &ExportArgs) -> Result<()> {
    let ExportArgs { db, to, out, .. } = args;
    let names = || EXPORTS.iter().map(|export| export.name);
    let layout = EXPORTS.iter().find(|export| export.name == to).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        UsageError(format!("--to {to}{}; wanted one of {known}", did_you_mean(nearest(to, names()))))
    })?;
    let place =
        if to == "votes" { Place::file(out, "--out", VOTES) } else { Place::folder(out, "--out", OURS) };
    let _claim = place.claim(args.overwrite)?;
    let record = Record::read(db)?;
    let keys: Vec<&str> = record.settings.questions.iter().map(|question| question.key.as_str()).collect();
    let question = match &args.question {
        None => 0,
        Some(name) => keys.iter().position(|key| key == name).ok_or_else(|| {
            UsageError(format!("--question {name} was not asked; wanted one of {}", keys.join(", ")))
        })?,
    };
    let images: Arc<dyn ImageSource> = match of_places(&record.places) {
        Some(images) => images,
        // A set of pairs whose images lie within other files.
        None => {
            let reading = OpenSettings { ties: true, ..args.reading.settings()? };
            of_pairs(&record.name, Arc::new(pairs::open(&record.name, Part::default(), &reading)?))?.images
        }
    };
    let n = export_as(layout, &record, question as u32, images.as_ref(), out)?;
    if n > 0 {
        place.done()?;
    }
    println!("wrote {}: {}, {}", out.display(), counted(n as u64, "row"), layout.makes);
    if ["pick-a-pic", "jsonl"].contains(&layout.name) {
        next::say_train(&next::word(out), "diffusion-dpo", &[]);
    }
    Ok(())
}
