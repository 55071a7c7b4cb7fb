//! `tastemaker data check`: every row of a set, checked before training.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;
use clap::Args;
use tastemaker_data::check::{self, CaptionTokens, Kind, Settings, Severity, Summary, Timing};
use tastemaker_data::{PairSource, exclusions};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_run::HeldOutChoice;

use super::checked_run::CheckedRun;
use crate::commands::{side, tokens};
use crate::exit::{FindingsError, UsageError};
use crate::next;
use crate::pairs::{self, ReadingFlags};
use crate::place::{OverwriteFlag, Place, PlaceError};
use crate::progress::{Work, counted, duration};

/// Checks every row of a set: images that do not decode, pairs that teach nothing or come twice, sizes, captions and images on
/// both sides of the held-out split. Nothing is changed; findings go to check.jsonl and, with images, to index.html.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CheckArgs {
    /// Pairs: a folder or file in any layout of docs/guide/data.md, its URL, or the name of a fetched dataset; or the recipe of a
    /// run, whose pairs are checked as that run reads them.
    #[arg(value_name = "SET|RECIPE.toml")]
    pub set: String,
    #[command(flatten)]
    pub reading: ReadingFlags,
    /// Method of the training run; kto reads single images [default: one that reads pairs, or that of the recipe].
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Folder for the results [default: check-NAME in the current folder].
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Resolution of the training run, in pixels [default: 512, or that of the recipe].
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    pub resolution: Option<u32>,
    /// Fraction of held-out captions of the training run [default: 0.05, or that of the recipe].
    #[arg(long, value_name = "FRACTION")]
    pub held_out_fraction: Option<f64>,
    /// Seed of the training run, which selects the held-out captions [default: 0, or that of the recipe].
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Maximum caption length of the training run in tokens; longer captions are cut [default: 75, or that of the recipe].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    pub max_token_length: Option<u32>,
    /// Threads [default: one per CPU core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    dataloader_num_workers: Option<u32>,
    /// List of rows to skip, from an earlier --fix [default: none, or that of the recipe].
    #[arg(long, value_name = "FILE")]
    pub exclude: Option<PathBuf>,
    /// Write excluded.jsonl, a list for --exclude of train: `default` lists unusable rows, `all` suspicious ones too; or
    /// names of checks, separated by commas [default: not written; --fix alone: default].
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "default", value_delimiter = ',')]
    fix: Vec<String>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Exit with code 3 if there are errors, or with =warnings also if there are warnings.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "errors", value_parser = ["errors", "warnings"])]
    strict: Option<String>,
}

/// Runs the command.
pub fn check(args: &CheckArgs) -> Result<()> {
    if let Some(found) = args.held_out_fraction.filter(|fraction| !(0.0..1.0).contains(fraction)) {
        return Err(
            UsageError(format!("--held_out_fraction is {found}; wanted at least 0 and below 1")).into()
        );
    }
    let run = CheckedRun::of(args)?;
    let plan = &run.plan;
    let settings = Settings {
        resolution: plan.data.resolution,
        held_out_fraction: plan.data.held_out_fraction,
        is_drawn: plan.data.held_out_choice == HeldOutChoice::Drawn,
        seed: plan.train.seed,
        caption_tokens: Some(caption_tokens(plan.model.max_token_length as usize)?),
        workers: args.dataloader_num_workers.map_or_else(cores, |n| n as usize),
        exclude: to_exclude(&args.fix)?,
    };
    let path = Path::new(&plan.data.train_data_dir);
    let set = pairs::of_plan(plan)?;
    let folder = args.output_dir.clone().unwrap_or_else(|| default_folder(path));
    check::check_folder(&folder, path)?;
    let _claim = Place::folder(&folder, "--output_dir", &["**"]).claim_to_go_on()?;
    if !args.fix.is_empty() && !args.overwrite.overwrite {
        keep_edited(&folder.join("excluded.jsonl"))?;
    }
    let are_single = set.label(0).is_some();
    let mut progress = Work::new("checking", if are_single { "images" } else { "pairs" });
    let checked = check::write(&set, path, &settings, &folder, &mut |done, of| {
        progress.at(done as u64, of as u64);
    });
    progress.end();
    let (summary, written) = checked?;
    print!("{summary}");
    println!("{}", run.in_words(args));
    println!("{}", time(&summary.timing));
    println!("wrote {} and {}", written.page.display(), written.findings.display());
    if let Some(list) = written.exclusions {
        let n = summary.excluded.len();
        let rows = if n == 1 { "row" } else { "rows" };
        println!("wrote {} with {n} {rows}; train with --exclude {0}", list.display());
    }
    verdict(&summary, args.strict.as_deref())?;
    let typed = args.set.as_str();
    if summary.n(Severity::Error) > 0 && args.fix.is_empty() {
        next::again(&[], &["--fix"]);
        return Ok(());
    }
    let list = next::word(&folder.join("excluded.jsonl"));
    let exclude: &[&str] = if args.fix.is_empty() { &[] } else { &["--exclude", &list] };
    match &run.recipe {
        Some(_) => next::say(&[&["tastemaker", "train", typed], exclude].concat()),
        None => next::say_train(typed, next::method_for(are_single), exclude),
    }
    Ok(())
}

/// A list that somebody worked on is not replaced.
fn keep_edited(list: &Path) -> Result<()> {
    if list.is_file() && exclusions::is_edited(list)? {
        let list = list.display();
        return Err(PlaceError(format!(
            "{list} was edited since it was written; choose another --output_dir, or --overwrite (with --exclude {list} its rows stay \
             excluded)"
        ))
        .into());
    }
    Ok(())
}

fn to_exclude(words: &[String]) -> Result<Vec<Kind>, UsageError> {
    let mut kinds = Vec::new();
    for word in words {
        let Some(of_word) = check::fixed_by(word) else {
            let known =
                check::CHECKS.iter().map(|check| check.name).filter(|name| check::fixed_by(name).is_some());
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(UsageError(format!(
                "--fix={word} excludes nothing; known are default, all, {known}"
            )));
        };
        kinds.extend(of_word);
    }
    Ok(kinds)
}

/// How long captions are to CLIP.
fn caption_tokens(limit: usize) -> Result<CaptionTokens> {
    static CLIP: OnceLock<ClipTokenizer> = OnceLock::new();
    let tokenizer = ClipTokenizer::published()?;
    CLIP.get_or_init(|| tokenizer);
    let count = |caption: &str| CLIP.get().map_or(0, |tokenizer| tokenizer.n_tokens(caption));
    Ok(CaptionTokens { count, limit })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// `check-` and the set's own name, without an ending.
fn default_folder(set: &Path) -> PathBuf {
    let whole = set.canonicalize().unwrap_or_else(|_| set.to_path_buf());
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    PathBuf::from(format!("check-{}", name.unwrap_or_default().to_string_lossy()))
}

fn time(timing: &Timing) -> String {
    format!(
        "{}, {}, {:.0}% utilization, {:.0}% decoding",
        duration(timing.wall.as_secs_f64()),
        counted(timing.workers as u64, "thread"),
        100.0 * timing.utilization(),
        100.0 * timing.decoder_fraction()
    )
}

fn verdict(summary: &Summary, strict: Option<&str>) -> Result<()> {
    let (errors, warnings) = (summary.n(Severity::Error), summary.n(Severity::Warning));
    let fails = match strict {
        None => false,
        Some("warnings") => errors + warnings > 0,
        Some(_) => errors > 0,
    };
    if fails {
        return Err(FindingsError(format!("{} has {}", summary.path, summary.verdict())).into());
    }
    Ok(())
}
