//! `tastemaker demo` and `tastemaker pretrain`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tastemaker_demo::pretrain::{self, Part};
use tastemaker_demo::{MethodName, Settings, TaskName};
use tastemaker_store::dtype::DType;

use crate::exit::UsageError;
use crate::place::{OverwriteFlag, Place};
use crate::progress::Work;

/// Aligns the embedded model with each method, judges the results and writes a report.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct DemoArgs {
    /// Output folder: base model, pairs, recipes, aligned models, report.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Seed of pairs, training and generating.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Preference of the pairs.
    #[arg(long, value_enum, default_value_t = TaskName::Style)]
    task: TaskName,
    /// Methods to run; repeat for several [default: all].
    #[arg(long, value_enum)]
    method: Vec<MethodName>,
    /// Twice the steps, 1.5 times the images.
    #[arg(long)]
    full: bool,
    /// Learning rate in place of the recipe's, with a single --method.
    #[arg(long = "learning_rate", value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Optimizer steps in place of the recipe's, with a single --method.
    #[arg(long = "max_train_steps", value_name = "STEPS")]
    max_train_steps: Option<u64>,
    /// Flags for `tastemaker train` that override the recipe, with a single --method.
    #[arg(last = true, value_name = "FLAGS")]
    train_flags: Vec<String>,
}

/// What of it is there as soon as anything is, in a demo that ended and in one that did not.
const MARKS: &[&str] = &["summary.json", "base/model_index.json"];

/// What the demo writes into its folder, beside a folder for each method.
const OURS: &[&str] = &[
    "base/**",
    "recipes/*.toml",
    "pairs/metadata.jsonl",
    "pairs/images/#.png",
    "encoded/**",
    "report.html",
    "summary.json",
    "sft/**",
    "diffusion-dpo/**",
    "mapo/**",
    "ddim-inpo/**",
];

/// Makes one part of the embedded model from the embedded art.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct PretrainArgs {
    /// Part to train; each needs the ones before it.
    #[arg(value_enum)]
    part: Part,
    /// Model folder: configurations are read from it, weights written to it.
    #[arg(long, value_name = "DIR", default_value = "assets/demo/model")]
    model: PathBuf,
    /// Tokenizer folder.
    #[arg(long, value_name = "DIR", default_value = "assets/demo/tokenizer")]
    tokenizer: PathBuf,
    /// Folder for the state of an unfinished run.
    #[arg(long, value_name = "DIR", default_value = "target/pretrain")]
    state: PathBuf,
    /// Optimizer steps [default: the part's own].
    #[arg(long, value_name = "STEPS")]
    max_train_steps: Option<u64>,
    /// Images per step [default: the part's own].
    #[arg(long, value_name = "IMAGES")]
    train_batch_size: Option<usize>,
    /// Peak learning rate [default: the part's own].
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Compute precision: no (fp32) or bf16.
    #[arg(long, value_name = "TYPE", value_parser = ["no", "bf16"], default_value = "no")]
    mixed_precision: String,
    /// Compute in bf16, the same as --mixed_precision bf16.
    #[arg(long)]
    bf16: bool,
    /// CPU threads [default: libtorch's choice].
    #[arg(long)]
    threads: Option<i32>,
    /// Seed of weights and random draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the demo.
///
/// # Errors
/// [`UsageError`] for flags of a single method with several.
pub fn demo(args: DemoArgs) -> Result<()> {
    let overridden =
        args.learning_rate.is_some() || args.max_train_steps.is_some() || !args.train_flags.is_empty();
    if overridden && args.method.len() != 1 {
        let what = "--learning_rate, --max_train_steps and flags for training need exactly one --method";
        return Err(UsageError(what.into()).into());
    }
    let _claim = Place::folder(&args.out, "--out", OURS).marked(MARKS).claim(args.overwrite)?;
    let settings = Settings {
        out: args.out,
        seed: args.seed,
        task: args.task,
        methods: args.method,
        full: args.full,
        learning_rate: args.learning_rate,
        max_train_steps: args.max_train_steps,
        train_flags: args.train_flags,
        program: std::env::current_exe().context("finding this program")?,
    };
    let mut work = Work::new("generating", "images");
    tastemaker_demo::run(&settings, &mut print, &mut |done, of| {
        work.at(done as u64, of as u64);
        if done == of {
            work = Work::new("generating", "images");
        }
    })?;
    eprintln!("next: open {} in a browser", settings.out.join("report.html").display());
    Ok(())
}

/// Trains a part of the embedded model.
///
/// # Errors
/// Those of [`pretrain::run`].
pub fn pretrain(args: PretrainArgs) -> Result<()> {
    let _claim = Place::folder(&args.state, "--state", &["**"]).claim_to_go_on()?;
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    let settings = pretrain::Settings {
        part: args.part,
        model: args.model,
        tokenizer: args.tokenizer,
        state: args.state,
        max_train_steps: args.max_train_steps,
        train_batch_size: args.train_batch_size,
        learning_rate: args.learning_rate,
        dtype: if args.bf16 || args.mixed_precision == "bf16" { DType::Bf16 } else { DType::F32 },
        seed: args.seed,
    };
    Ok(pretrain::run(&settings, &mut print)?)
}

fn print(line: &str) {
    println!("{line}");
}
