//! `tastemaker vote results`: what votes come to.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tastemaker_eval::compare::Plan;
use tastemaker_store::atomic;
use tastemaker_web::results::{Results, ScorerScores, page, read_scores, text};
use tastemaker_web::vote::Record;

use super::what::{listed, prompts_of};
use crate::place::{OverwriteFlag, Place};

/// Prints who wins, how sure that is, and how far people agree with each other and with scorers; writes a page and JSON.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct ResultsArgs {
    /// Database of the votes
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
    /// Count only prompts of this category [default: all]
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    /// Output folder for report.html and results.json [default: nothing is written]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Print JSON in place of text
    #[arg(long)]
    json: bool,
    /// Pairs of images on the page
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    n_images: usize,
    /// Prompts of the comparison, where they are a file [default: those the comparison names]
    #[arg(long, value_name = "NAME|FILE|DIR")]
    prompts: Option<String>,
}

/// What the command writes into its folder.
const OURS: &[&str] = &["report.html", "results.json"];

/// Runs the command.
pub fn results(args: &ResultsArgs) -> Result<()> {
    let place = args.out.as_deref().map(|out| Place::folder(out, "--out", OURS).marked(&["results.json"]));
    let _claim = place.map(|place| place.claim(args.overwrite)).transpose()?;
    let record = Record::read(&args.db)?;
    let scorers = scorers(&record, args.prompts.as_deref())?;
    let results = Results::of(&record, args.category.as_deref(), &scorers)?;
    if args.json {
        print!("{}", results.json()?);
    } else {
        print!("{}", text(&results));
    }
    let Some(out) = &args.out else { return Ok(()) };
    atomic::create_folder(out)?;
    atomic::write_bytes(out.join("results.json"), results.json()?.as_bytes())?;
    let report = out.join("report.html");
    atomic::write_bytes(&report, page(&record, &results, args.n_images).as_bytes())?;
    eprintln!("wrote {} and {}", report.display(), out.join("results.json").display());
    Ok(())
}

/// The scores of the comparison that was voted on, if it was one and they are there.
fn scorers(record: &Record, prompts: Option<&str>) -> Result<Vec<ScorerScores>> {
    let folder = Path::new(&record.name);
    let scores = folder.join("scores.jsonl");
    let Some(plan) = Plan::read(folder.join("compare.json"))?.filter(|_| scores.is_file()) else {
        return Ok(Vec::new());
    };
    match prompts_of(&plan, prompts) {
        Ok(set) => Ok(read_scores(&scores, &listed(set), record)?),
        Err(error) if prompts.is_none() => {
            eprintln!("note: without the scorers of the comparison: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
