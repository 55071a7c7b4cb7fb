//! The demo: trains every method on one task from the same base and seed, judges, reports.
//!
//! Every method is trained by `tastemaker train` as a process of its own, on recipes and pairs written to disk: what the
//! demo shows is what a user gets, and the memory figure is that method's alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;
use tastemaker_eval::compare::{Results, write};
use tastemaker_generate::Generator;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_models::unet::UNet;
use tastemaker_run::{Event, read_events};
use tastemaker_store::atomic;
use tastemaker_store::dtype::DType;
use tch::Device;

use crate::art::{Art, STYLES};
use crate::evaluation::{Evaluation, OnImage, preference_scorer};
use crate::methods::{BATCH, MethodName, Numbers};
use crate::prompts::Samples;
use crate::report::{self, CurvePoint, MethodResult, Trained, Training};
use crate::scorers::{Judge, self_check};
use crate::task::{Task, TaskName};
use crate::{DemoError, base, clear, pairs};

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything goes: base model, pairs, recipes, aligned models, report.
    pub out: PathBuf,
    /// Seed of pairs, training and generating.
    pub seed: u64,
    /// What the pairs prefer.
    pub task: TaskName,
    /// Methods to run; none for all.
    pub methods: Vec<MethodName>,
    /// Twice the steps and half again as many images.
    pub full: bool,
    /// Learning rate in place of the recipe's.
    pub learning_rate: Option<f64>,
    /// Optimizer steps in place of the recipe's.
    pub max_train_steps: Option<u64>,
    /// More flags for `tastemaker train`.
    pub train_flags: Vec<String>,
    /// The program whose `train` is run.
    pub program: PathBuf,
}

/// Runs the demo; `log` gets lines for people, and `on_image` is called after each image that is generated.
///
/// # Errors
/// [`DemoError`]; a method that fails does not end the demo, and the report says why it did.
pub fn run(settings: &Settings, log: &mut dyn FnMut(&str), on_image: OnImage<'_>) -> Result<(), DemoError> {
    tastemaker_torch::memory::keep_freed();
    let started = Instant::now();
    let methods = match settings.methods.as_slice() {
        [] => MethodName::value_variants(),
        some => some,
    };
    let out = &settings.out;
    let base_folder = out.join("base");
    base::unpack(&base_folder)?;

    let art = Art::open()?;
    let task = Task::new(settings.task, &art)?;
    let gallery = art.gallery();
    let judge = Judge::new(&gallery, art.captions.len(), STYLES.len())?;
    let learned = preference_scorer(&task, &art, &gallery, &judge, settings.seed)?;
    let (preference, scorer_check) = learned.unzip();
    let evaluation = Evaluation {
        generator: Generator::open(&Model::open(&base_folder)?, DType::F32, Device::Cpu)?,
        samples: Samples::of(&task, &art, settings.seed, settings.full),
        task: &task,
        art: &art,
        judge: &judge,
        preference,
    };
    let base = unet(&base_folder)?;
    log(&format!("generating {} images with the base", evaluation.samples.samples.len()));
    let base_generated = evaluation.generate(&base, on_image)?;

    let preferences = match settings.task {
        TaskName::Quality => evaluation.ranked_by_the_judge(&base, settings.seed, log, on_image)?,
        _ => task.preferences(),
    };
    let pairs_folder = out.join("pairs");
    let n_pairs = pairs::write(&pairs_folder, &preferences, settings.seed)?;
    // All methods share what is encoded, and nothing is left of earlier pairs.
    clear(&out.join("encoded"))?;
    log(&format!("wrote {n_pairs} pairs to {}", pairs_folder.display()));

    let mut results = Vec::new();
    for &method in methods {
        let mut numbers = method.numbers(settings.task, settings.full);
        numbers.learning_rate = settings.learning_rate.unwrap_or(numbers.learning_rate);
        numbers.steps = settings.max_train_steps.unwrap_or(numbers.steps);
        let result = align(&evaluation, settings, method, &numbers, log, on_image);
        results.push(MethodResult { method, numbers, result });
    }
    let checks = (self_check(&judge, &gallery, 23)?, scorer_check);
    let comparison = report::comparison(settings, &evaluation, &base_generated, &results, n_pairs)?;
    let details = report::details(settings, &evaluation, &base_generated, &results, checks);
    let compared = Results::of(&comparison)?;
    let extras = report::extras(&comparison, &compared, &details);
    let page = write(&comparison, &compared, &extras, out)?;
    log(&report::table(&comparison, &compared, &details));
    log(&format!("{} in {:.0} s", page.display(), started.elapsed().as_secs_f64()));
    Ok(())
}

fn unet(model: &Path) -> Result<UNet, DemoError> {
    Ok(Model::open(model)?.unet(Role::Frozen, DType::F32, Device::Cpu, None)?.network)
}

/// Trains one method in a process of its own and generates with the result.
fn align(
    evaluation: &Evaluation<'_>,
    settings: &Settings,
    method: MethodName,
    numbers: &Numbers,
    log: &mut dyn FnMut(&str),
    on_image: OnImage<'_>,
) -> Result<Trained, DemoError> {
    let out = &settings.out;
    let output = out.join(method.name());
    clear(&output)?;
    let recipe = out.join("recipes").join(format!("{}.toml", method.name()));
    atomic::create_folder(out.join("recipes"))?;
    let text = method.recipe(numbers, &out.join("base"), &out.join("pairs"), &output, settings.seed);
    atomic::write_bytes(&recipe, text.as_bytes())?;

    log(&format!("training {} for {} steps of {BATCH} pairs", method.label(), numbers.steps));
    let mut command = Command::new(&settings.program);
    command.arg("train").arg(&recipe).args(&settings.train_flags);
    let status = command.status().map_err(|error| DemoError::io("start", &settings.program, error))?;
    if !status.success() {
        return Err(DemoError::Training { recipe, status: status.to_string() });
    }
    let training = training(&output)?;
    let network = unet(&output.join("model"))?;
    log(&format!("generating with {}", method.label()));
    Ok(Trained { training, generated: evaluation.generate(&network, on_image)? })
}

/// Steps, time, memory and curve out of a run's event log. Curves are validations: the same held-out pairs and draws for
/// every method.
fn training(output: &Path) -> Result<Training, DemoError> {
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
