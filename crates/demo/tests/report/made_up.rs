//! A demo with made-up results: one method wins, one is unclear, one has lost, one never finished.

use image::{Rgb, RgbImage, imageops};
use tastemaker_demo::TaskName;
use tastemaker_demo::report::{
    CheckRow, CurvePoint, Details, Fractions, Method, ScorerCheck, ScorerCheckRow, Training,
};
use tastemaker_eval::compare::{Choice, ComparedModel, Comparison, Sample, ScorerInfo, ShownSample};
use tastemaker_generate::prompts::Prompt;
use tastemaker_math::{Keyed, Stream};
use tastemaker_pages::{Fact, Thumbnail};

/// How much of everything.
#[derive(Clone, Copy, PartialEq)]
pub enum Size {
    /// For a snapshot: few points, two plain images.
    Small,
    /// For the eye: full curves and real art.
    Full,
}

/// Names of the models that finished, and the fractions of samples they win, held out and seen.
const MODELS: [(&str, [f64; 2]); 5] = [
    ("base", [0.5, 0.5]),
    ("sft", [0.64, 0.83]),
    ("diffusion-dpo", [0.71, 0.78]),
    ("mapo", [0.55, 0.66]),
    ("ddim-inpo", [0.24, 0.31]),
];

/// The comparison, and what the report has beyond it.
pub fn demo(size: Size) -> (Comparison, Details) {
    let n = if size == Size::Full { 182 } else { 100 };
    let prompts = ["held out", "seen"].into_iter().flat_map(|category| {
        (0..n / 2).map(move |number| Prompt {
            id: number.to_string(),
            text: if number == 0 {
                "cat & \"dog\"".to_owned()
            } else {
                format!("{category} prompt {number}")
            },
            category: Some(category.to_owned()),
        })
    });
    let samples: Vec<Sample> = (0..n).flat_map(|prompt| [0, 1].map(|seed| Sample { prompt, seed })).collect();
    let scores = |scorer: usize| -> Vec<Vec<f64>> {
        MODELS.iter().enumerate().map(|(model, (_, wins))| scores(size, scorer, model, *wins, n)).collect()
    };
    let comparison = Comparison {
        prompts_name: "demo:style".to_owned(),
        prompts: prompts.collect(),
        shown: shown(size, n),
        samples,
        models: MODELS.iter().map(|(name, _)| model(name)).collect(),
        scorers: [("nearest-art:style", "nats"), ("preference", "log-odds")]
            .map(|(name, unit)| ScorerInfo {
                name: name.to_owned(),
                unit: unit.to_owned(),
                about: format!("what {name} says"),
            })
            .to_vec(),
        scores: vec![scores(0), scores(1)],
        seed: 0,
        settings: vec![
            Fact::new("program", "tastemaker 0.1.0"),
            Fact::new("base model", "sha256 1f0c6a52"),
            Fact::new("training pairs", 1095),
            Fact::new("sampler", "DDIM, 20 steps, guidance 2"),
        ],
        focus: Some("held out".to_owned()),
    };
    (comparison, details(size))
}

fn details(size: Size) -> Details {
    let mut methods = vec![
        method(size, 0, "sft", [1.0, 0.97, 0.99]),
        method(size, 1, "diffusion-dpo", [0.4, 1.02, 1.31]),
        method(size, 2, "mapo", [0.7, 1.01, 1.08]),
        method(size, 3, "ddim-inpo", [0.1, 1.34, 1.9]),
    ];
    methods[0].is_control = true;
    if let Some([held_out, _]) = &mut methods[3].fractions {
        held_out.caption_accuracy = 0.51;
    }
    methods.push(Method {
        name: "unfinished <method>".to_owned(),
        is_control: false,
        training: Training { steps: 12, seconds: 4.0, ..Training::default() },
        fractions: None,
        failure: Some("the loss was not finite at step 12, pair 403".to_owned()),
    });
    Details {
        task: TaskName::Style,
        seed: 0,
        base: [fractions(182, 0.71, 0.35), fractions(190, 0.74, 0.33)],
        methods,
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
                    wilson_high: (accuracy + 0.011_f64).min(1.0),
                    judge_accuracy: 1.0,
                    agreement: accuracy,
                })
                .to_vec(),
        }),
    }
}

fn method(size: Size, index: u64, name: &str, [final_loss, winner, loser]: [f64; 3]) -> Method {
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
        is_control: false,
        training: Training {
            steps: n_steps,
            seconds: 21.4 + 20.0 * index as f64,
            peak_memory_bytes: (index != 2).then_some(734_003_200 + (index << 27)),
            curve,
        },
        fractions: Some([fractions(182, 0.72, 0.52), fractions(190, 0.75, 0.58)]),
        failure: None,
    }
}

fn fractions(n: usize, caption_accuracy: f64, target: f64) -> Fractions {
    Fractions { n, caption_accuracy, target: Some(target) }
}

fn model(name: &str) -> ComparedModel {
    let settings = vec![Fact::new("learning rate", "2e-5"), Fact::new("beta", 1000)];
    ComparedModel { name: name.to_owned(), what: format!("demo-out/{name}"), settings }
}

/// Scores above those of the base, which are 0, for so many of the samples.
fn scores(size: Size, scorer: usize, model: usize, wins: [f64; 2], n: usize) -> Vec<f64> {
    let mut noise = Keyed::new((10 * scorer + model) as u64, Stream::Data, 1, 0);
    let score = |(fraction, place): (f64, usize)| {
        let won = (place as f64 + 0.5) / n as f64 <= fraction;
        let margin = if size == Size::Full { noise.uniform() * 4.0 } else { 1.0 };
        match (model, won) {
            (0, _) => 0.0,
            (_, true) => margin,
            (_, false) => -margin,
        }
    };
    wins.into_iter().flat_map(|fraction| (0..n).map(move |place| (fraction, place))).map(score).collect()
}

fn shown(size: Size, n: usize) -> Vec<ShownSample> {
    let samples: &[(usize, usize)] = match size {
        Size::Small => &[(0, 0), (1, n)],
        Size::Full => {
            &[(0, 0), (125, 9), (168, 20), (179, 41), (274, 60), (335, 90), (382, n + 3), (428, n + 50)]
        }
    };
    let atlases = if size == Size::Full { atlases() } else { Vec::new() };
    let image = |row: usize, caption: usize| match size {
        Size::Small => RgbImage::from_pixel(1, 1, Rgb([row as u8, caption as u8, 0])),
        Size::Full => generated(&atlases, row, caption),
    };
    let thumbnail = |row, caption| Thumbnail::new(&image(row, caption)).expect("an image with pixels");
    let shown = |&(caption, sample): &(usize, usize)| ShownSample {
        sample,
        choice: Choice::Spread,
        real: Some(thumbnail(0, caption)),
        images: (1..=MODELS.len()).map(|row| thumbnail(row, caption)).collect(),
    };
    samples.iter().map(shown).collect()
}

fn atlases() -> Vec<RgbImage> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/art");
    ["fluent-flat", "noto", "twemoji"]
        .map(|style| image::open(format!("{folder}/{style}.png")).expect("the embedded art").into_rgb8())
        .to_vec()
}

/// Real art for the first row, and art blurred more or less as if generated for the others.
fn generated(atlases: &[RgbImage], row: usize, caption: usize) -> RgbImage {
    let (x, y) = (caption as u32 % 24 * 64, caption as u32 / 24 * 64);
    let art = imageops::crop_imm(&atlases[row % atlases.len()], x, y, 64, 64).to_image();
    if row == 0 { art } else { imageops::blur(&art, 0.5 + 0.3 * row as f32) }
}
