//! `tastemaker demo`: trains every method on one task from the same base and seed, judges, reports.
//!
//! Every method is trained by `tastemaker train` as a process of its own, on recipes and pairs written to disk: what the
//! demo shows is what a user gets, and the memory figure is that method's alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use image::RgbImage;
use tastemaker_diffusion::Denoiser;
use tastemaker_eval::generate::{Job, PaintSettings, Painter};
use tastemaker_eval::report::{self, CurvePoint, Fact, Method, Outcome, Report, Shares, Training};
use tastemaker_eval::scorers::{Artwork, Judge, Reading, self_check};
use tastemaker_eval::winrate::{self, Comparison, Group};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::ModelFolder;
use tastemaker_run::{Event, read_events};
use tastemaker_torch::Precision;
use tch::Device;

use super::art::{Art, STYLES, Split};
use super::methods::{ALL, BATCH, MethodName, Numbers};
use super::pictures::grid;
use super::task::{Preference, Task, TaskName};
use super::{base, pairs};

/// Aligns the embedded model with each method, judges the results and writes a report.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where everything goes: base model, pairs, recipes, aligned models, report.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Seed of pairs, training and painting.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What the pairs prefer.
    #[arg(long, value_enum, default_value_t = TaskName::Style)]
    task: TaskName,
    /// Methods to run; repeat for several [default: all].
    #[arg(long, value_enum)]
    method: Vec<MethodName>,
    /// Twice the steps and half again as many pictures.
    #[arg(long)]
    full: bool,
    /// Learning rate in place of the recipe's, with a single --method.
    #[arg(long, visible_alias = "learning_rate", value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Optimiser steps in place of the recipe's, with a single --method.
    #[arg(long, visible_alias = "max_train_steps", value_name = "STEPS")]
    max_train_steps: Option<u64>,
}

/// What a model painted, and how the judge reads it.
struct Painted {
    pictures: Vec<RgbImage>,
    readings: Vec<Reading>,
}

/// One picture to be painted by everybody.
#[derive(Clone, Copy)]
struct Question {
    caption: usize,
    seed: u64,
    group: Group,
}

/// The demo's fixed parts.
struct Stage<'a> {
    task: &'a Task<'a>,
    art: &'a Art,
    painter: Painter,
    judge: Judge,
    questions: Vec<Question>,
    settings: PaintSettings,
}

/// Runs the command.
pub fn demo(args: &DemoArgs) -> Result<()> {
    let started = Instant::now();
    let methods = if args.method.is_empty() { ALL.to_vec() } else { args.method.clone() };
    let overridden = args.learning_rate.is_some() || args.max_train_steps.is_some();
    ensure!(!overridden || methods.len() == 1, "--learning-rate and --max-train-steps need exactly one --method");
    let out = &args.out;
    let base_folder = out.join("base");
    base::unpack(&base_folder)?;

    let art = Art::open()?;
    let task = Task::new(args.task, &art)?;
    let gallery = gallery(&art);
    let judge = Judge::new(&gallery, art.captions.len(), STYLES.len())?;
    let folder = ModelFolder::open(&base_folder)?;
    let stage = Stage {
        painter: Painter::open(&folder, Precision::F32, Device::Cpu)?,
        questions: questions(&task, args),
        settings: PaintSettings { n_steps: 20, guidance_scale: 2.0, batch_size: 32, eta: 0.0 },
        task: &task,
        art: &art,
        judge,
    };
    let base_network = folder.unet(Role::Frozen, Precision::F32, Device::Cpu, None)?.network;
    println!("painting {} pictures with the base", stage.questions.len());
    let base_painted = stage.paint(&base_network)?;

    let preferences = match args.task {
        TaskName::Quality => ranked_by_the_judge(&stage, &base_network, args.seed)?,
        _ => task.preferences(),
    };
    let pairs_folder = out.join("pairs");
    let n_pairs = pairs::write(&pairs_folder, &preferences, args.seed)?;
    println!("wrote {n_pairs} pairs to {}", pairs_folder.display());

    let mut results = Vec::new();
    for &method in &methods {
        let mut numbers = method.numbers(args.task, args.full);
        numbers.learning_rate = args.learning_rate.unwrap_or(numbers.learning_rate);
        numbers.steps = args.max_train_steps.unwrap_or(numbers.steps);
        let result = align(&stage, args, method, &numbers, &base_folder, &pairs_folder);
        results.push((method, numbers, result));
    }
    let report = assemble(args, &stage, &gallery, &base_painted, &results, n_pairs)?;
    let page = report::write(&report, out)?;
    print_table(&report);
    for alarm in report::findings(&report).iter().chain(&report.alarms) {
        println!("! {}{}", alarm.method.as_ref().map(|m| format!("{m}: ")).unwrap_or_default(), alarm.what);
    }
    println!("{} in {:.0} s", page.display(), started.elapsed().as_secs_f64());
    Ok(())
}

fn gallery(art: &Art) -> Vec<Artwork> {
    let cell = |caption: usize| {
        (0..STYLES.len()).map(move |style| Artwork { caption, style, image: art.picture(caption, style) })
    };
    (0..art.captions.len()).flat_map(cell).collect()
}

/// Held-out captions with two seeds each (safety, which has few: six), and a sample of seen ones.
fn questions(task: &Task<'_>, args: &DemoArgs) -> Vec<Question> {
    let repeats = match (task.name, args.full) {
        (TaskName::Safety, _) => 6,
        (_, false) => 2,
        (_, true) => 3,
    };
    let held_out = task.prompts(Split::HeldOut);
    let seen = task.prompts(Split::Train);
    let n_seen = 48.min(seen.len());
    let ask = |group: Group| move |(i, caption): (usize, usize)| Question { caption, seed: i as u64, group };
    let shown = (0..n_seen).map(|i| seen[i * seen.len() / n_seen]);
    (0..repeats)
        .flat_map(|_| held_out.iter().copied())
        .enumerate()
        .map(ask(Group::HeldOut))
        .chain(shown.enumerate().map(ask(Group::Seen)))
        .map(|q| Question { seed: (args.seed << 32) + q.seed, ..q })
        .collect()
}

impl Stage<'_> {
    fn paint(&self, denoiser: &dyn Denoiser) -> Result<Painted> {
        let jobs: Vec<Job> = self
            .questions
            .iter()
            .enumerate()
            .map(|(number, question)| Job {
                prompt: self.art.captions[question.caption].label.clone(),
                seed: question.seed,
                number: number as u64,
            })
            .collect();
        let pictures = self.painter.paint(denoiser, &jobs, &self.settings)?;
        let readings = pictures.iter().map(|picture| self.judge.read(picture)).collect();
        Ok(Painted { pictures, readings })
    }

    fn shares(&self, painted: &Painted) -> Result<winrate::Split<Shares>> {
        winrate::Split::try_build(|group| {
            let of_group: Vec<(&Reading, usize)> = painted
                .readings
                .iter()
                .zip(&self.questions)
                .filter(|(_, question)| question.group == group)
                .map(|(reading, question)| (reading, question.caption))
                .collect();
            let n = of_group.len();
            let share = |test: &dyn Fn(&Reading, usize) -> bool| {
                of_group.iter().filter(|(reading, caption)| test(reading, *caption)).count() as f64 / n as f64
            };
            let has_target = self.task.name.target_share().is_some();
            Ok(Shares {
                n,
                caption_accuracy: share(&|reading, caption| self.task.caption_correct(reading, caption)),
                target_share: has_target
                    .then(|| share(&|reading, caption| self.task.meets_target(reading, caption) == Some(true))),
            })
        })
    }

    fn compare(&self, a: &Painted, b: &Painted, seed: u64) -> Result<winrate::Split<winrate::WinRate>> {
        let score = |painted: &Painted, i: usize| self.task.score(&painted.readings[i], self.questions[i].caption);
        let comparisons: Vec<Comparison> = self
            .questions
            .iter()
            .enumerate()
            .map(|(i, q)| Comparison {
                prompt: q.caption,
                seed: q.seed,
                group: q.group,
                a: score(a, i),
                b: score(b, i),
            })
            .collect();
        Ok(winrate::win_rates(&comparisons, seed)?)
    }
}

/// Four pictures per training caption by the base; best against worst, by the judge.
fn ranked_by_the_judge(stage: &Stage<'_>, base: &dyn Denoiser, seed: u64) -> Result<Vec<Preference>> {
    const CANDIDATES: usize = 4;
    let captions = stage.art.on(Split::Train);
    let jobs: Vec<Job> = captions
        .iter()
        .flat_map(|&caption| (0..CANDIDATES).map(move |k| (caption, k)))
        .map(|(caption, k)| Job {
            prompt: stage.art.captions[caption].label.clone(),
            seed: seed ^ (1 << 60),
            number: (caption * CANDIDATES + k) as u64,
        })
        .collect();
    println!("painting {} candidates with the base", jobs.len());
    let pictures = stage.painter.paint(base, &jobs, &stage.settings)?;
    let preference = |(caption, candidates): (&usize, &[RgbImage])| {
        let score = |picture: &RgbImage| stage.task.score(&stage.judge.read(picture), *caption);
        let mut ranked: Vec<(f64, &RgbImage)> = candidates.iter().map(|p| (score(p), p)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Preference {
            loser: ranked.first()?.1.clone(),
            winner: ranked.last()?.1.clone(),
            caption: stage.art.captions[*caption].label.clone(),
        })
    };
    Ok(captions.iter().zip(pictures.chunks(CANDIDATES)).filter_map(preference).collect())
}

/// What training one method left behind.
struct Aligned {
    training: Training,
    painted: Painted,
}

/// Trains one method in a process of its own and paints with the result.
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
    let status = Command::new(program).arg("train").arg(&recipe).status().context("starting `tastemaker train`")?;
    if !status.success() {
        bail!("`tastemaker train {}` ended with {status}", recipe.display());
    }
    let training = training(&output)?;
    let folder = ModelFolder::open(output.join("model"))?;
    let network = folder.unet(Role::Frozen, Precision::F32, Device::Cpu, None)?.network;
    println!("painting with {}", method.label());
    Ok(Aligned { training, painted: stage.paint(&network)? })
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

fn assemble(
    args: &DemoArgs,
    stage: &Stage<'_>,
    gallery: &[Artwork],
    base_painted: &Painted,
    results: &[(MethodName, Numbers, Result<Aligned>)],
    n_pairs: usize,
) -> Result<Report> {
    let painted = |name: MethodName| {
        results.iter().find(|(method, ..)| *method == name).and_then(|(.., result)| result.as_ref().ok())
    };
    let control = painted(MethodName::Sft);
    let mut methods = Vec::new();
    for (method, numbers, result) in results {
        let (training, outcome, failure) = match result {
            Ok(aligned) => {
                let versus_control = control
                    .filter(|_| *method != MethodName::Sft)
                    .map(|control| stage.compare(&aligned.painted, &control.painted, args.seed))
                    .transpose()?;
                let outcome = Outcome {
                    shares: stage.shares(&aligned.painted)?,
                    versus_base: stage.compare(&aligned.painted, base_painted, args.seed)?,
                    versus_control,
                    versus_base_by_scorer: None,
                };
                (aligned.training.clone(), Some(outcome), None)
            }
            Err(error) => (Training::default(), None, Some(format!("{error:#}"))),
        };
        methods.push(Method {
            name: method.name().into(),
            label: method.label().into(),
            is_control: *method == MethodName::Sft,
            settings: vec![
                Fact::new("learning rate", format!("{:e}", numbers.learning_rate)),
                Fact::new("steps", numbers.steps),
                Fact::new("pairs per step", BATCH),
                Fact::new("objective", numbers.settings.trim()),
            ],
            training,
            outcome,
            failure,
        });
    }
    let rows: Vec<(String, Option<String>, &[RgbImage])> =
        std::iter::once(("base".to_owned(), None, base_painted.pictures.as_slice()))
            .chain(results.iter().filter_map(|(method, _, result)| {
                let pictures = result.as_ref().ok()?.painted.pictures.as_slice();
                Some((method.label().to_owned(), Some(method.name().to_owned()), pictures))
            }))
            .collect();
    let questions: Vec<(usize, bool)> =
        stage.questions.iter().map(|q| (q.caption, q.group == Group::HeldOut)).collect();
    Ok(Report {
        title: "Aligning a small Stable Diffusion with taste".into(),
        task: args.task.name().into(),
        goal: args.task.goal().into(),
        seed: args.seed,
        settings: facts(args, stage, n_pairs),
        target: args.task.target_share(),
        base: stage.shares(base_painted)?,
        methods,
        pictures: grid(stage.task, stage.art, &questions, &rows)?,
        judge: "The nearest real artwork, by caption and style, in a feature space fixed by formula; no trained network \
                has a say in it."
            .into(),
        score_unit: stage.task.score_unit().into(),
        judge_check: self_check(&stage.judge, gallery, 23)?,
        scorer_check: None,
        alarms: Vec::new(),
    })
}

fn facts(args: &DemoArgs, stage: &Stage<'_>, n_pairs: usize) -> Vec<Fact> {
    vec![
        Fact::new("program", concat!("tastemaker ", env!("CARGO_PKG_VERSION"))),
        Fact::new("base model", format!("sha256 {}", &base::fingerprint()[..16])),
        Fact::new("seed", args.seed),
        Fact::new("training pairs", n_pairs),
        Fact::new("sampler", format!("DDIM, {} steps, guidance {}", stage.settings.n_steps, stage.settings.guidance_scale)),
        Fact::new("threads", tch::get_num_threads()),
    ]
}

fn print_table(report: &Report) {
    println!(
        "\n{:<16} {:>9} {:>15} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8}",
        "", "held out", "95% interval", "seen", "captions", "target", "steps", "seconds", "memory"
    );
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1}%", 100.0 * share));
    let base = &report.base.held_out;
    println!(
        "{:<16} {:>9} {:>15} {:>9} {:>9} {:>9}",
        "base", "", "", "", percent(Some(base.caption_accuracy)), percent(base.target_share)
    );
    for method in &report.methods {
        let Some(outcome) = &method.outcome else {
            println!("{:<16} failed: {}", method.label, method.failure.as_deref().unwrap_or("unknown"));
            continue;
        };
        let win = &outcome.versus_base.held_out;
        println!(
            "{:<16} {:>9} {:>15} {:>9} {:>9} {:>9} {:>7} {:>8.1} {:>8}",
            method.label,
            percent(Some(win.rate)),
            format!("{:.1}-{:.1}%", 100.0 * win.low, 100.0 * win.high),
            percent(Some(outcome.versus_base.seen.rate)),
            percent(Some(outcome.shares.held_out.caption_accuracy)),
            percent(outcome.shares.held_out.target_share),
            method.training.steps,
            method.training.seconds,
            method.training.peak_memory_bytes.map_or("-".to_owned(), |b| format!("{} MB", b >> 20)),
        );
    }
    println!();
}
