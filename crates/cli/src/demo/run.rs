//! `tastemaker demo`: trains every method on one task from the same base and seed, judges, reports.
//!
//! Every method is trained by `tastemaker train` as a process of its own, on recipes and pairs written to disk: what the
//! demo shows is what a user gets, and the memory figure is that method's alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tastemaker_eval::report::{self, CurvePoint, Training};
use tastemaker_eval::scorers::Judge;
use tastemaker_generate::{GenerateSettings, Generator};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Event, read_events};
use tastemaker_store::dtype::DType;
use tch::Device;

use super::art::{Art, STYLES};
use super::methods::{ALL, BATCH, MethodName, Numbers};
use super::stage::{
    BATCH_SIZE, GUIDANCE_SCALE, N_STEPS, Stage, gallery, questions, ranked_by_the_judge, scorer,
};
use super::summary::{Aligned, Entry, assemble, print_table};
use super::task::{Task, TaskName};
use super::{base, pairs};

/// Aligns the embedded model with each method, judges the results and writes a report.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where everything goes: base model, pairs, recipes, aligned models, report.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    pub(super) out: PathBuf,
    /// Seed of pairs, training and generating.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// What the pairs prefer.
    #[arg(long, value_enum, default_value_t = TaskName::Style)]
    pub(super) task: TaskName,
    /// Methods to run; repeat for several [default: all].
    #[arg(long, value_enum)]
    method: Vec<MethodName>,
    /// Twice the steps and half again as many images.
    #[arg(long)]
    full: bool,
    /// Learning rate in place of the recipe's, with a single --method.
    #[arg(long, visible_alias = "learning_rate", value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Optimizer steps in place of the recipe's, with a single --method.
    #[arg(long, visible_alias = "max_train_steps", value_name = "STEPS")]
    max_train_steps: Option<u64>,
    /// Flags for `tastemaker train`, over the recipe, with a single --method.
    #[arg(last = true, value_name = "FLAGS")]
    pub(super) train_flags: Vec<String>,
}

/// Runs the command.
pub fn demo(args: &DemoArgs) -> Result<()> {
    tastemaker_torch::memory::keep_freed();
    let started = Instant::now();
    let methods = if args.method.is_empty() { ALL.to_vec() } else { args.method.clone() };
    let overridden =
        args.learning_rate.is_some() || args.max_train_steps.is_some() || !args.train_flags.is_empty();
    ensure!(
        !overridden || methods.len() == 1,
        "--learning-rate, --max-train-steps and flags for training need exactly one --method"
    );
    let out = &args.out;
    let base_folder = out.join("base");
    base::unpack(&base_folder)?;

    let art = Art::open()?;
    let task = Task::new(args.task, &art)?;
    let gallery = gallery(&art);
    let judge = Judge::new(&gallery, art.captions.len(), STYLES.len())?;
    let learned = scorer(&task, &art, &gallery, &judge, args.seed)?;
    let (scorer, scorer_check) = learned.unzip();
    let folder = Model::open(&base_folder)?;
    let stage = Stage {
        generator: Generator::open(&folder, DType::F32, Device::Cpu)?,
        questions: questions(&task, args.seed, args.full),
        settings: GenerateSettings {
            n_steps: N_STEPS,
            guidance_scale: GUIDANCE_SCALE,
            batch_size: BATCH_SIZE,
            ..GenerateSettings::default()
        },
        task: &task,
        art: &art,
        judge: &judge,
        scorer,
    };
    let base_network = folder.unet(Role::Frozen, DType::F32, Device::Cpu, None)?.network;
    println!("generating {} images with the base", stage.questions.len());
    let base_generated = stage.generate(&base_network)?;

    let preferences = match args.task {
        TaskName::Quality => ranked_by_the_judge(&stage, &base_network, args.seed)?,
        _ => task.preferences(),
    };
    let pairs_folder = out.join("pairs");
    let n_pairs = pairs::write(&pairs_folder, &preferences, args.seed)?;
    // All methods share what is encoded, and nothing is left of earlier pairs.
    let encoded = pairs_folder.with_file_name("encoded");
    if encoded.exists() {
        std::fs::remove_dir_all(&encoded).with_context(|| format!("clearing {}", encoded.display()))?;
    }
    println!("wrote {n_pairs} pairs to {}", pairs_folder.display());

    let mut results = Vec::new();
    for &method in &methods {
        let mut numbers = method.numbers(args.task, args.full);
        numbers.learning_rate = args.learning_rate.unwrap_or(numbers.learning_rate);
        numbers.steps = args.max_train_steps.unwrap_or(numbers.steps);
        let result = align(&stage, args, method, &numbers, &base_folder, &pairs_folder);
        results.push(Entry { method, numbers, result });
    }
    let report = assemble(args, &stage, &gallery, scorer_check, &base_generated, &results, n_pairs)?;
    let page = report::write(&report, out)?;
    print_table(&report);
    for alarm in report::findings(&report).iter().chain(&report.alarms) {
        println!("! {}{}", alarm.method.as_ref().map(|m| format!("{m}: ")).unwrap_or_default(), alarm.what);
    }
    println!("{} in {:.0} s", page.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Trains one method in a process of its own and generates with the result.
fn align(
    stage: &Stage<'_>,
    args: &DemoArgs,
    method: MethodName,
    numbers: &Numbers,
    base: &Path,
    pairs: &Path,
) -> Result<Aligned> {
    let output = args.out.join(method.name());
    if output.exists() {
        std::fs::remove_dir_all(&output).with_context(|| format!("clearing {}", output.display()))?;
    }
    let recipes = args.out.join("recipes");
    std::fs::create_dir_all(&recipes).with_context(|| format!("creating {}", recipes.display()))?;
    let recipe = recipes.join(format!("{}.toml", method.name()));
    let text = method.recipe(numbers, base, pairs, &output, args.seed);
    std::fs::write(&recipe, text).with_context(|| format!("writing {}", recipe.display()))?;

    println!("training {} for {} steps of {BATCH} pairs", method.label(), numbers.steps);
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg("train").arg(&recipe).args(&args.train_flags);
    let status = command.status().context("starting `tastemaker train`")?;
    if !status.success() {
        bail!("`tastemaker train {}` ended with {status}", recipe.display());
    }
    let training = training(&output)?;
    let folder = Model::open(output.join("model"))?;
    let network = folder.unet(Role::Frozen, DType::F32, Device::Cpu, None)?.network;
    println!("generating with {}", method.label());
    Ok(Aligned { training, generated: stage.generate(&network)? })
}

/// Steps, time, memory and curve out of a run's event log. Curves are probes: the same held-out pairs and draws for
/// every method.
fn training(output: &Path) -> Result<Training> {
    let mut training = Training::default();
    let mut last_loss = f64::NAN;
    for event in read_events(output.join("events.jsonl"))?.events {
        match event {
            Event::Step(step) => last_loss = step.loss,
            Event::Probe(probe) => training.curve.push(CurvePoint {
                step: probe.step,
                loss: last_loss,
                implicit_accuracy: probe.implicit_accuracy,
                winner_error_ratio: probe.ref_winner.map(|reference| probe.winner_error / reference),
                loser_error_ratio: probe.loser_error.zip(probe.ref_loser).map(|(now, before)| now / before),
            }),
            Event::Finish(finish) => {
                training.steps = finish.step;
                training.seconds = finish.seconds;
                training.peak_memory_bytes = finish.peak_memory_bytes;
            }
            _ => {}
        }
    }
    // Before the first step there is no loss yet; the curve starts with that of the first step.
    if let [first, second, ..] = training.curve.as_mut_slice() {
        first.loss = second.loss;
    }
    Ok(training)
}
