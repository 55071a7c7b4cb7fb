//! Scoring what is not scored yet, one scorer in memory at a time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};
use tastemaker_eval::compare::{Ledger, Score};
use tastemaker_eval::scorers::Item;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_torch::Precision;
use tch::Device;

use super::CompareArgs;
use super::asked::Asked;
use super::contestants::{Entrant, Source};
use super::generating::place;
use crate::exit::UsageError;
use crate::judges;
use crate::progress::Work;

/// Images read and scored at once.
const AT_ONCE: usize = 32;

/// The scorers typed: name, and what tells each from others of its name. Each scores one gray image, so that one that cannot
/// judge these prompts is noticed before anything is generated.
///
/// # Errors
/// [`UsageError`] for two of one name; whatever keeps a scorer from being opened or from judging.
pub fn identify(typed: &[String], asked: &Asked, device: Device) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let gray = RgbImage::from_pixel(64, 64, Rgb([128; 3]));
    for typed in typed {
        let panel = judges::open(std::slice::from_ref(typed), Precision::F32, device)?;
        panel.score(&[Item { image: &gray, prompt: asked.prompt(0) }])?;
        for (name, fingerprint) in panel.names().into_iter().zip(panel.fingerprints()?) {
            if found.iter().any(|(known, _)| *known == name) {
                return Err(UsageError(format!("scorer `{name}` is given twice")).into());
            }
            found.push((name, sha256_bytes(fingerprint.as_bytes())));
        }
    }
    Ok(found)
}

/// The scores of everybody, `[scorers][contestants][questions]`; those that are not in the folder are made and kept there.
pub fn scores(
    args: &CompareArgs,
    asked: &Asked,
    entrants: &[Entrant],
    scorers: &[String],
    device: Device,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let path = args.out.join("scores.jsonl");
    let mut ledger = Ledger::open(&path)?;
    for (typed, scorer) in args.scorer.iter().zip(scorers) {
        let missing: Vec<(&Entrant, Vec<usize>)> = entrants
            .iter()
            .map(|entrant| (entrant, unscored(&ledger, entrant, scorer, asked)))
            .filter(|(_, questions)| !questions.is_empty())
            .collect();
        if missing.is_empty() {
            println!("{scorer}: all scores are there");
            continue;
        }
        let n_missing: usize = missing.iter().map(|(_, questions)| questions.len()).sum();
        println!("{scorer}: scoring {n_missing} images");
        let panel = judges::open(std::slice::from_ref(typed), Precision::F32, device)?;
        let (mut work, mut done) = (Work::new("scoring", "images"), 0);
        for (entrant, questions) in missing {
            for some in questions.chunks(AT_ONCE) {
                let images = some.iter().map(|&question| image(entrant, question, asked, &args.out));
                let images: Vec<RgbImage> = images.collect::<Result<_>>()?;
                let items: Vec<Item<'_>> = some
                    .iter()
                    .zip(&images)
                    .map(|(&question, image)| Item { image, prompt: asked.prompt(question) })
                    .collect();
                let given = tch::no_grad(|| panel.score(&items))?;
                let given = given.into_iter().flatten().zip(some);
                ledger.add(
                    given.map(|(score, &question)| row(entrant, scorer, question, asked, score)).collect(),
                )?;
                done += some.len();
                work.at(done as u64, n_missing as u64);
            }
        }
        work.end();
    }
    // Scores that were just given count as they will be read the next time.
    drop(ledger);
    gather(&Ledger::open(&path)?, asked, entrants, scorers)
}

fn unscored(ledger: &Ledger, entrant: &Entrant, scorer: &str, asked: &Asked) -> Vec<usize> {
    let is_there = |question: &usize| {
        let asked = &asked.questions[*question];
        ledger.get(&entrant.name, scorer, asked.prompt, asked.seed).is_some()
    };
    (0..asked.questions.len()).filter(|question| !is_there(question)).collect()
}

fn row(entrant: &Entrant, scorer: &str, question: usize, asked: &Asked, score: f64) -> Score {
    let question = asked.questions[question];
    Score {
        contestant: entrant.name.clone(),
        scorer: scorer.to_owned(),
        number: question.prompt,
        seed: question.seed,
        score,
    }
}

fn gather(
    ledger: &Ledger,
    asked: &Asked,
    entrants: &[Entrant],
    scorers: &[String],
) -> Result<Vec<Vec<Vec<f64>>>> {
    let of = |entrant: &Entrant, scorer: &String| -> Option<Vec<f64>> {
        let score = |question: &tastemaker_eval::compare::Question| {
            ledger.get(&entrant.name, scorer, question.prompt, question.seed)
        };
        asked.questions.iter().map(score).collect()
    };
    let scores = scorers.iter().map(|scorer| entrants.iter().map(|entrant| of(entrant, scorer)).collect());
    scores.collect::<Option<_>>().context("a scorer gave fewer scores than it was asked for")
}

/// Where the image of a question lies.
pub fn file(entrant: &Entrant, question: usize, asked: &Asked, out: &Path) -> PathBuf {
    match &entrant.source {
        Source::Model { .. } => place(out, &entrant.name, &asked.questions[question]),
        Source::Images { files, .. } => files[question].clone(),
    }
}

/// The image of a question.
///
/// # Errors
/// [`EvalError::Image`](tastemaker_eval::EvalError::Image) with the file's name, for one that does not decode.
pub fn image(entrant: &Entrant, question: usize, asked: &Asked, out: &Path) -> Result<RgbImage> {
    let path = file(entrant, question, asked, out);
    let image = image::open(&path).map_err(tastemaker_eval::EvalError::from);
    Ok(image.with_context(|| format!("reading {}", path.display()))?.into_rgb8())
}
