//! `cargo xtask bench train`: our steps and the peer's in turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::lines::{self, Case, Line, Measurements, Side, What};
use super::options::{Bench, Common};
use super::{inputs, ours, peer, table};

/// What is measured, and how.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// A folder of pairs with a metadata.jsonl of columns image_0, image_1, label_0, label_1, caption [default: made]
    #[arg(long)]
    pairs: Option<PathBuf>,
    /// speed: LoRA steps; memory: steps of a full fine-tune
    #[arg(long, value_delimiter = ',', default_value = "speed,memory")]
    what: Vec<What>,
    /// Methods, with commas between: diffusion-dpo, mapo
    #[arg(long, value_delimiter = ',', default_value = "diffusion-dpo,mapo")]
    methods: Vec<String>,
    /// Ours: bf16, no
    #[arg(long, value_delimiter = ',', default_value = "bf16,no")]
    precision: Vec<String>,
    /// The peer's: bf16, no, and bf16-via-f32, which computes products in f32 as ours does
    #[arg(long, value_delimiter = ',', default_value = "bf16-via-f32,no")]
    peer_precision: Vec<String>,
    /// The peer's steps: lora, with encoders in the loop; lora-no-vae
    #[arg(long, value_delimiter = ',', default_value = "lora,lora-no-vae")]
    peer_modes: Vec<String>,
    /// Ours for the full fine-tune: adamw, adamw8bit, adafactor; the peer has adamw
    #[arg(long, value_delimiter = ',', default_value = "adamw")]
    optimizer: Vec<String>,
    /// Rows in which both sides compute activations again: speed, memory, none
    #[arg(long, value_delimiter = ',', default_value = "memory")]
    gradient_checkpointing: Vec<String>,
    /// Time ours with a precomputed reference, too
    #[arg(long, alias = "bank")]
    precomputed: bool,
    /// Timed steps of a process, after one that warms up; memory takes one
    #[arg(long, default_value_t = 2)]
    steps: u32,
    /// Turns of all timed rows; memory takes one
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Minutes after which a process is stopped; a step under way then counts as a lower bound
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Folder for cache, precomputed reference, logs and results of runs, kept [default: one that is removed]
    #[arg(long)]
    work: Option<PathBuf>,
}

/// Measures every row in turns, appends a line for each and prints the tables.
///
/// # Errors
/// Something needed cannot be made, or at the end, a process had failed.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("tastemaker-bench-{}", std::process::id()));
    let work = options.work.as_deref().unwrap_or(&scratch);
    fs::create_dir_all(work).with_context(|| format!("cannot create {}", work.display()))?;
    let measured = run_in(root, options, work);
    if options.work.is_none() {
        let _ = fs::remove_dir_all(work);
    }
    let measured = measured?;
    println!("{}", table::markdown(&measured));
    match measured.iter().filter(|line| line.measurements.failed.is_some()).count() {
        0 => Ok(()),
        n => bail!(
            "{n} of {} processes did not end well: see `failed` in {}",
            measured.len(),
            options.common.out.display()
        ),
    }
}

fn run_in(root: &Path, options: &Options, work: &Path) -> Result<Vec<Line>> {
    let ready = options.common.ready(root)?;
    let resolution = ready.setting.resolution;
    let pairs = options.pairs.clone().unwrap_or_else(|| work.join(format!("pairs-{resolution}")));
    inputs::make_pairs(root, &ready.python, &pairs, resolution)?;
    let bench = Bench {
        root,
        common: &options.common,
        ready,
        pairs: &pairs,
        work,
        limit: Duration::from_secs(60 * options.limit),
    };
    in_turns(&bench, options)
}

fn in_turns(bench: &Bench<'_>, options: &Options) -> Result<Vec<Line>> {
    let cases = cases(options);
    let mut measured = Vec::new();
    for round in 1..=options.rounds.max(1) {
        let mut turn: Vec<_> = cases.iter().filter(|case| round == 1 || case.what == What::Speed).collect();
        // Back and forth, so that a drift of the machine's speed favors no side.
        if round % 2 == 0 {
            turn.reverse();
        }
        for case in turn {
            println!("bench: round {round}, {case}");
            let line = measure(bench, options, case, round)?;
            if let Some(failed) = &line.measurements.failed {
                println!("bench: {failed}");
            }
            lines::append(&options.common.out, &line)?;
            measured.push(line);
        }
    }
    Ok(measured)
}

fn measure(bench: &Bench<'_>, options: &Options, case: &Case, round: u32) -> Result<Line> {
    // The second step is the first with the optimizer's state from its beginning.
    let n_steps = if case.what == What::Memory { 1 } else { options.steps.max(1) };
    let (measurements, ended) = match case.side {
        Side::Ours => ours::measure(bench, case, n_steps)?,
        Side::Peer => peer::measure(bench, case, n_steps)?,
    };
    let silent = ended.failed.is_none() && measurements.seconds.len() < n_steps as usize;
    let failed = ended.failed.or_else(|| silent.then(|| "it did not tell of all its steps".to_owned()));
    let measurements = Measurements { failed, unfinished_seconds: ended.unfinished_seconds, ..measurements };
    Ok(Line {
        case: case.clone(),
        round,
        setting: bench.ready.setting.clone(),
        measurements,
        process_seconds: ended.seconds,
    })
}

/// The rows that were asked for.
fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    let adamw = ["adamw".to_owned()];
    for &what in &options.what {
        for method in &options.methods {
            let is_dpo = method == "diffusion-dpo";
            let ours: &[&str] = match what {
                What::Speed if options.precomputed && is_dpo => &["lora", "lora-precomputed"],
                What::Speed => &["lora"],
                What::Memory if is_dpo => &["full-precomputed"],
                What::Memory => &["full"],
            };
            let peers = match what {
                What::Speed => options.peer_modes.iter().map(String::as_str).collect(),
                What::Memory => vec!["full"],
            };
            let optimizers = if what == What::Memory { &options.optimizer[..] } else { &adamw };
            let (again, name) = (&options.gradient_checkpointing, format!("{what:?}").to_lowercase());
            for (side, modes, precisions, optimizers) in [
                (Side::Ours, ours, &options.precision, optimizers),
                (Side::Peer, &peers[..], &options.peer_precision, &adamw),
            ] {
                if !options.common.asks(side) {
                    continue;
                }
                for (mode, precision, optimizer) in modes.iter().flat_map(|mode| {
                    precisions.iter().flat_map(move |p| optimizers.iter().map(move |o| (mode, p, o)))
                }) {
                    cases.push(Case {
                        what,
                        method: method.clone(),
                        side,
                        mode: (*mode).to_owned(),
                        precision: precision.clone(),
                        optimizer: optimizer.clone(),
                        gradient_checkpointing: again.contains(&name),
                    });
                }
            }
        }
    }
    cases
}
