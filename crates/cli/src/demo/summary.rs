//! From results to the report, and to the table on the terminal.

use std::collections::BTreeMap;

use anyhow::Result;
use image::RgbImage;
use tastemaker_eval::report::{Fact, Method, Outcome, Report, Training};
use tastemaker_eval::scorers::{Artwork, ScorerCheck, self_check};
use tastemaker_eval::winrate::{Group, Split, WinRate};

use super::base;
use super::images::grid;
use super::methods::{BATCH, MethodName, Numbers};
use super::run::DemoArgs;
use super::stage::{Generated, Stage};

/// What training one method left behind.
pub struct Aligned {
    /// How training went.
    pub training: Training,
    /// What the result generates.
    pub generated: Generated,
}

/// One method's settings, and its result or what ended it.
pub struct Entry {
    /// Which method.
    pub method: MethodName,
    /// Its recipe.
    pub numbers: Numbers,
    /// What came of it.
    pub result: Result<Aligned>,
}

/// Puts the report together.
pub fn assemble(
    args: &DemoArgs,
    stage: &Stage<'_>,
    gallery: &[Artwork],
    scorer_check: Option<ScorerCheck>,
    base_generated: &Generated,
    results: &[Entry],
    n_pairs: usize,
) -> Result<Report> {
    let mut methods = Vec::new();
    for Entry { method, numbers, result } in results {
        let (training, outcome, failure) = match result {
            Ok(aligned) => {
                let outcome = Outcome {
                    shares: stage.shares(&aligned.generated)?,
                    versus_base: stage.compare(&aligned.generated, base_generated, args.seed)?,
                    versus_methods: versus_methods(stage, *method, aligned, results, args.seed)?,
                    versus_base_by_scorer: stage.compare_by_scorer(
                        &aligned.generated,
                        base_generated,
                        args.seed,
                    )?,
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
        std::iter::once(("base".to_owned(), None, base_generated.images.as_slice()))
            .chain(results.iter().filter_map(|Entry { method, result, .. }| {
                let images = result.as_ref().ok()?.generated.images.as_slice();
                Some((method.label().to_owned(), Some(method.name().to_owned()), images))
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
        base: stage.shares(base_generated)?,
        methods,
        images: grid(stage.task, stage.art, &questions, &rows)?,
        judge: "The nearest real artwork, by caption and style, in a feature space fixed by formula; no trained network \
                has a say in it."
            .into(),
        score_unit: stage.task.score_unit().into(),
        judge_check: self_check(stage.judge, gallery, 23)?,
        scorer_check,
        alarms: Vec::new(),
    })
}

/// One method against every other that has generated.
fn versus_methods(
    stage: &Stage<'_>,
    method: MethodName,
    aligned: &Aligned,
    results: &[Entry],
    seed: u64,
) -> Result<BTreeMap<String, Split<WinRate>>> {
    let others = results.iter().filter(|entry| entry.method != method);
    others
        .filter_map(|entry| Some((entry.method.name().to_owned(), entry.result.as_ref().ok()?)))
        .map(|(name, other)| Ok((name, stage.compare(&aligned.generated, &other.generated, seed)?)))
        .collect()
}

fn facts(args: &DemoArgs, stage: &Stage<'_>, n_pairs: usize) -> Vec<Fact> {
    vec![
        Fact::new("program", concat!("tastemaker ", env!("CARGO_PKG_VERSION"))),
        Fact::new("base model", format!("sha256 {}", &base::fingerprint()[..16])),
        Fact::new("seed", args.seed),
        Fact::new("training pairs", n_pairs),
        Fact::new(
            "sampler",
            format!("DDIM, {} steps, guidance {}", stage.settings.n_steps, stage.settings.guidance_scale),
        ),
        Fact::new("threads", tch::get_num_threads()),
    ]
}

/// Prints the figures that matter most.
pub fn print_table(report: &Report) {
    println!(
        "\n{:<16} {:>9} {:>15} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8}",
        "", "held out", "95% interval", "seen", "captions", "target", "steps", "seconds", "memory"
    );
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1}%", 100.0 * share));
    let base = &report.base.held_out;
    println!(
        "{:<16} {:>9} {:>15} {:>9} {:>9} {:>9}",
        "base",
        "",
        "",
        "",
        percent(Some(base.caption_accuracy)),
        percent(base.target_share)
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
