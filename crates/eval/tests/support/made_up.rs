//! A report about made-up results: one method wins, one is unclear, one has lost, one never finished.

use image::{RgbImage, imageops};
use std::collections::BTreeMap;
use tastemaker_eval::report::{
    Alarm, CurvePoint, Fact, Image, ImageColumn, ImageGrid, ImageRow, Method, Outcome, Report, Severity,
    Shares, TargetShare, Training,
};
use tastemaker_eval::scorers::{CheckRow, ScorerCheck, ScorerCheckRow};
use tastemaker_eval::winrate::{Group, ScorePair, Split, WinRate, win_rates};
use tastemaker_math::{Keyed, Stream};

/// How much of everything.
#[derive(Clone, Copy, PartialEq)]
pub enum Size {
    /// For a snapshot: few points, two columns of stand-in images.
    Small,
    /// For the eye: full curves and real art.
    Full,
}

pub fn report(size: Size) -> Report {
    let mut methods = vec![
        method(size, 0, "sft", "SFT control", [0.64, 0.83], [1.0, 0.97, 0.99]),
        method(size, 1, "diffusion-dpo", "Diffusion-DPO", [0.71, 0.78], [0.4, 1.02, 1.31]),
        method(size, 2, "mapo", "MaPO", [0.55, 0.66], [0.7, 1.01, 1.08]),
        method(size, 3, "ddim-inpo", "DDIM-InPO", [0.24, 0.31], [0.1, 1.34, 1.9]),
    ];
    methods[0].is_control = true;
    if let Some(outcome) = &mut methods[3].outcome {
        outcome.shares.held_out.caption_accuracy = 0.51;
    }
    meet(size, &mut methods);
    methods.push(Method {
        name: "unfinished".to_owned(),
        label: "Unfinished <method>".to_owned(),
        is_control: false,
        settings: Vec::new(),
        training: Training { steps: 12, seconds: 4.0, ..Training::default() },
        outcome: None,
        failure: Some("the loss was not finite at step 12, pair 403".to_owned()),
    });
    Report {
        title: "Four ways to teach a small Stable Diffusion a taste".to_owned(),
        task: "style".to_owned(),
        goal: "images in the Fluent Flat style over the same caption in another style".to_owned(),
        seed: 0,
        settings: vec![
            Fact::new("base model", "embedded demo pipeline, 4.1 M parameters"),
            Fact::new("base hash", "sha256 1f0c6a52"),
            Fact::new("pairs", "1,095 train, 273 held out"),
            Fact::new("sampler", "DDIM, 20 steps, guidance 4.0"),
            Fact::new("engine", "libtorch 2.11.0, CPU, f32"),
            Fact::new("machine", "2 cores, 24 GiB memory"),
        ],
        target: Some(TargetShare { field: "style_share".to_owned(), label: "Fluent Flat share".to_owned() }),
        base: Split { held_out: shares(182, 0.71, 0.35), seen: shares(190, 0.74, 0.33) },
        methods,
        images: images(size),
        judge: "The nearest real artwork decides, in a feature space fixed by formula. No trained network is asked.".to_owned(),
        score_unit: "nats".to_owned(),
        judge_check: [("undisturbed", 1.0), ("noise, 12 of 255", 0.998), ("all at once", 0.991)]
            .map(|(disturbance, accuracy)| CheckRow {
                disturbance: disturbance.to_owned(),
                n: 456,
                caption_accuracy: accuracy,
                style_accuracy: 1.0,
            })
            .to_vec(),
        scorer_check: Some(ScorerCheck {
            name: "preference".to_owned(),
            n_train_pairs: 1468,
            rows: [("target style over another", 267, 0.981), ("right <motif> over a wrong one", 89, 1.0)]
                .map(|(pairs, n, accuracy)| ScorerCheckRow {
                    pairs: pairs.to_owned(),
                    n,
                    accuracy,
                    wilson_low: accuracy - 0.024,
                    wilson_high: (accuracy + 0.011).min(1.0),
                    judge_accuracy: 1.0,
                    agreement: accuracy,
                })
                .to_vec(),
        }),
        alarms: vec![Alarm {
            severity: Severity::Remark,
            method: None,
            what: "Peak memory includes the judge's gallery.".to_owned(),
        }],
    }
}

/// Lets every method meet every other: one that does better against the base does better here.
fn meet(size: Size, methods: &mut [Method]) {
    let against_base: Vec<(String, [f64; 2])> = methods
        .iter()
        .filter_map(|method| {
            let Split { held_out, seen } = method.outcome.as_ref()?.versus_base;
            Some((method.name.clone(), [held_out.rate, seen.rate]))
        })
        .collect();
    for (index, method) in methods.iter_mut().enumerate() {
        let own = against_base[index].1;
        let Some(outcome) = &mut method.outcome else { continue };
        let others = against_base.iter().enumerate().filter(|(place, _)| *place != index);
        outcome.versus_methods = others
            .map(|(place, (name, other))| {
                let wins = [0, 1].map(|group| 0.5 + 0.5 * (own[group] - other[group]));
                (name.clone(), duels(size, (100 + 10 * index + place) as u64, wins))
            })
            .collect();
    }
}

fn method(
    size: Size,
    index: u64,
    name: &str,
    label: &str,
    wins: [f64; 2],
    [final_loss, winner, loser]: [f64; 3],
) -> Method {
    let n_steps = if size == Size::Full { 120 } else { 4 };
    let mut noise = Keyed::new(index, Stream::Data, 0, 0);
    let curve = (1..=n_steps)
        .map(|step| {
            let progress = step as f64 / n_steps as f64;
            let mut towards =
                |end: f64, spread: f64| 1.0 + (end - 1.0) * progress.powf(1.4) + spread * noise.normal();
            CurvePoint {
                step,
                loss: 0.693 * towards(final_loss, 0.03),
                implicit_accuracy: (index > 0).then(|| (0.5 * towards(1.8, 0.12)).clamp(0.0, 1.0)),
                winner_error_ratio: Some(towards(winner, 0.012)),
                loser_error_ratio: Some(towards(loser, 0.015)),
            }
        })
        .collect();
    Method {
        name: name.to_owned(),
        label: label.to_owned(),
        is_control: false,
        settings: vec![
            Fact::new("learning rate", "2e-5"),
            Fact::new("beta", 1000),
            Fact::new("batch", "8 pairs"),
        ],
        training: Training {
            steps: n_steps,
            seconds: 21.4 + 20.0 * index as f64,
            peak_memory_bytes: (index != 2).then_some(734_003_200 + (index << 27)),
            curve,
        },
        outcome: Some(Outcome {
            shares: Split { held_out: shares(182, 0.72, 0.52), seen: shares(190, 0.75, 0.58) },
            versus_base: duels(size, index, wins),
            versus_base_by_scorer: (index != 2).then(|| duels(size, 20 + index, wins).held_out),
            versus_methods: BTreeMap::new(),
        }),
        failure: None,
    }
}

fn shares(n: usize, caption_accuracy: f64, target_share: f64) -> Shares {
    Shares { n, caption_accuracy, target_share: Some(target_share) }
}

/// Duels of which the given shares are won, held out and seen.
fn duels(size: Size, index: u64, [held_out, seen]: [f64; 2]) -> Split<WinRate> {
    let n = if size == Size::Full { 182 } else { 100 };
    let mut noise = Keyed::new(index, Stream::Data, 1, 0);
    let comparisons: Vec<ScorePair> = [(Group::HeldOut, held_out), (Group::Seen, seen)]
        .into_iter()
        .flat_map(|(group, share)| (0..n).map(move |place| (group, share, place)))
        .map(|(group, share, place)| {
            let won = (place as f64 + 0.5) / n as f64 <= share;
            let margin = if size == Size::Full { noise.uniform() * 4.0 } else { 1.0 };
            ScorePair {
                prompt: place / 2,
                seed: place as u64 % 2,
                group,
                a: if won { margin } else { -margin },
                b: 0.0,
            }
        })
        .collect();
    win_rates(&comparisons, 0).expect("scores are finite and no group is empty")
}

fn images(size: Size) -> ImageGrid {
    let columns: &[(usize, &str, bool)] = match size {
        Size::Small => &[(0, "red apple", true), (1, "cat & \"dog\"", false)],
        Size::Full => &[
            (0, "grinning face", true),
            (125, "monster", true),
            (168, "monkey face", true),
            (179, "cat face", true),
            (274, "whale", true),
            (335, "red apple", true),
            (382, "hamburger", true),
            (428, "birthday cake", true),
            (105, "alien", false),
            (179, "tiger face with a long caption", false),
            (251, "penguin", false),
            (300, "rose", false),
            (350, "corn", false),
            (420, "doughnut", false),
        ],
    };
    let generators = [
        ("Real art", None),
        ("Base", None),
        ("SFT control", Some("sft")),
        ("Diffusion-DPO", Some("diffusion-dpo")),
        ("MaPO", Some("mapo")),
        ("DDIM-InPO", Some("ddim-inpo")),
    ];
    let atlases = if size == Size::Full { atlases() } else { Vec::new() };
    let rows = generators
        .into_iter()
        .enumerate()
        .map(|(row, (label, method))| ImageRow {
            label: label.to_owned(),
            method: method.map(str::to_owned),
            images: columns
                .iter()
                .map(|&(caption, _, _)| match size {
                    Size::Small => (row < 5).then(|| Image { png: vec![row as u8, caption as u8] }),
                    Size::Full => Some(generated(&atlases, row, caption)),
                })
                .collect(),
        })
        .collect();
    let column =
        |&(_, prompt, held_out): &(usize, &str, bool)| ImageColumn { prompt: prompt.to_owned(), held_out };
    let choice = "The prompts are the first of each group.".to_owned();
    ImageGrid { choice, columns: columns.iter().map(column).collect(), rows }
}

fn atlases() -> Vec<RgbImage> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/art");
    ["fluent-flat", "noto", "twemoji"]
        .map(|style| image::open(format!("{folder}/{style}.png")).expect("the embedded art").into_rgb8())
        .to_vec()
}

/// Real art for the first row, and art blurred more or less as if generated for the others.
fn generated(atlases: &[RgbImage], row: usize, caption: usize) -> Image {
    let (x, y) = (caption as u32 % 24 * 64, caption as u32 / 24 * 64);
    let art = imageops::crop_imm(&atlases[row % atlases.len()], x, y, 64, 64).to_image();
    let art = if row == 0 { art } else { imageops::blur(&art, 0.5 + 0.3 * row as f32) };
    Image::new(&art).expect("an image of 64 x 64")
}
