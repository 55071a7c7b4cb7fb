//! A comparison of made-up scores: one model gains, one loses, two scorers that do not always agree.

use image::{Rgb, RgbImage};
use tastemaker_eval::compare::{Choice, ComparedModel, Comparison, Sample, ScorerInfo, ShownSample, choose};
use tastemaker_generate::prompts::Prompt;
use tastemaker_math::{Keyed, Stream};
use tastemaker_pages::{Fact, Thumbnail};

pub const NAMES: [&str; 3] = ["base", "tuned <&>", "worse"];

/// `n_prompts` prompts in two categories, two seeds each, with `n_shown` images on the page.
pub fn comparison(n_models: usize, n_scorers: usize, n_prompts: usize, n_shown: usize) -> Comparison {
    let prompts: Vec<Prompt> = (0..n_prompts)
        .map(|number| Prompt {
            id: number.to_string(),
            text: match number {
                0 => "a \"fox\" & <b>a hen</b>".to_owned(),
                number => format!("prompt {number}"),
            },
            category: Some(if number % 3 == 0 { "animals" } else { "scenes" }.to_owned()),
        })
        .collect();
    let samples: Vec<Sample> =
        (0..n_prompts).flat_map(|prompt| [4, 5].map(|seed| Sample { prompt, seed })).collect();
    let shifts = [0.0, 0.9, -1.6];
    let scores: Vec<Vec<Vec<f64>>> = (0..n_scorers)
        .map(|scorer| {
            (0..n_models)
                .map(|one| {
                    let mut keyed = Keyed::new(9, Stream::Sample, (scorer * 10 + one) as u64, 0);
                    let mut normals = vec![0.0_f32; samples.len()];
                    keyed.fill_normal(&mut normals);
                    let shift = shifts[one] / (scorer + 1) as f64;
                    normals
                        .iter()
                        .map(|&normal| 20.0 + ((f64::from(normal) + shift) * 8.0).round() / 8.0)
                        .collect()
                })
                .collect()
        })
        .collect();
    let differences: Vec<f64> =
        (0..samples.len()).map(|i| scores[0][n_models - 1][i] - scores[0][0][i]).collect();
    let shown = choose(&differences, n_shown).into_iter().map(|(sample, choice)| ShownSample {
        sample,
        real: None,
        choice,
        images: (0..n_models).map(|one| image(sample, one)).collect(),
    });
    Comparison {
        prompts_name: "made-up".into(),
        samples,
        models: NAMES[..n_models].iter().map(|name| model(name)).collect(),
        scorers: [("one-score", "nats"), ("other-score", "points")][..n_scorers]
            .iter()
            .map(|(name, unit)| ScorerInfo {
                name: (*name).into(),
                unit: (*unit).into(),
                about: format!("what {name} says"),
            })
            .collect(),
        shown: shown.collect(),
        scores,
        prompts,
        seed: 0,
        focus: None,
        settings: vec![Fact::new("seed", 4), Fact::new("noise", "by seed alone")],
    }
}

fn model(name: &str) -> ComparedModel {
    ComparedModel {
        name: name.to_owned(),
        what: format!("models/{name}"),
        settings: vec![Fact::new("num_inference_steps", 50), Fact::new("sha256", "0123abcd")],
    }
}

fn image(sample: usize, one: usize) -> Thumbnail {
    Thumbnail::new(&RgbImage::from_pixel(1, 1, Rgb([sample as u8, one as u8, 0]))).unwrap()
}

/// How many images are shown for this reason.
pub fn count(comparison: &Comparison, choice: Choice) -> usize {
    comparison.shown.iter().filter(|shown| shown.choice == choice).count()
}
