//! Scoring what is not scored yet, one scorer in memory at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};
use tastemaker_data::DataError;
use tastemaker_eval::compare::{Ledger, Sample, Score};
use tastemaker_eval::scorers::Item;
use tastemaker_generate::read_image;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::dtype::DType;
use tch::Device;

use super::candidates::{Candidate, Source};
use super::generating::place;
use super::samples::SampleSet;
use super::{CompareArgs, Replaced};
use crate::exit::UsageError;
use crate::progress::{Work, counted};
use crate::scorers;
use crate::scoring::{Loaded, Unscored, about_image, score_each};

/// The scorers typed: name, and what tells each from others of its name. Each scores one gray image, so that one that cannot
/// judge these prompts is noticed before anything is generated.
///
/// # Errors
/// [`UsageError`] for two of one name; whatever keeps a scorer from being opened or from judging.
pub fn identify(typed: &[String], set: &SampleSet, device: Device) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let gray = RgbImage::from_pixel(64, 64, Rgb([128; 3]));
    for typed in typed {
        let panel = scorers::open(std::slice::from_ref(typed), DType::F32, device)?;
        panel.score(&[Item { image: &gray, prompt: set.prompt(0) }])?;
        for (name, fingerprint) in panel.names().into_iter().zip(panel.fingerprints()?) {
            if found.iter().any(|(known, _)| *known == name) {
                return Err(UsageError(format!("scorer `{name}` is given twice")).into());
            }
            found.push((name, sha256_bytes(fingerprint.as_bytes())));
        }
    }
    Ok(found)
}

/// Scores what has no score in the folder yet, and keeps it there. Samples of which an image cannot be read or judged are returned,
/// with why.
pub fn score(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scorers: &[String],
    device: Device,
    replaced: &Replaced<'_>,
) -> Result<BTreeMap<usize, String>> {
    let mut skipped = BTreeMap::new();
    let path = args.out.join("scores.jsonl");
    let mut ledger = if replaced.is_there() { None } else { Some(Ledger::open(&path)?) };
    for (typed, scorer) in args.scorer.iter().zip(scorers) {
        let missing: Vec<(&Candidate, Vec<usize>)> =
            candidates.iter().map(|one| (one, unscored(ledger.as_ref(), one, scorer, set))).collect();
        let n_missing: usize = missing.iter().map(|(_, samples)| samples.len()).sum();
        if n_missing == 0 {
            println!("{scorer}: all scores are cached");
            continue;
        }
        println!("{scorer}: scoring {}", counted(n_missing as u64, "image"));
        let panel = scorers::open(std::slice::from_ref(typed), DType::F32, device)?;
        let (mut work, mut done) = (Work::new("scoring", "images"), 0);
        for (candidate, samples) in missing {
            let load = |index: usize| {
                let path = file(candidate, samples[index], set, &args.out);
                let prompt = set.prompt(samples[index]).to_owned();
                let loaded = read_image(&path)
                    .map(|image| vec![Loaded { image, prompt, place: path.display().to_string() }]);
                Ok(about_image(loaded.map_err(DataError::from))?)
            };
            let more = score_each(&panel, samples.len(), load, |found| {
                let given = found.items.iter().zip(found.scores.into_iter().flatten());
                let rows =
                    given.map(|(&item, score)| row(candidate, scorer, set.samples[samples[item]], score));
                replaced.make_way()?;
                let ledger = match &mut ledger {
                    Some(ledger) => ledger,
                    none => none.insert(Ledger::open(&path)?),
                };
                ledger.add(rows.collect())?;
                work.at((done + found.n_done) as u64, n_missing as u64);
                Ok(())
            })?;
            done += samples.len();
            skipped.extend(more.into_iter().map(|Unscored { item, why }| (samples[item], why)));
        }
        work.end();
    }
    Ok(skipped)
}

/// All scores, `[scorers][models][samples]`, as they are in the folder.
pub fn scores(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scorers: &[String],
) -> Result<Vec<Vec<Vec<f64>>>> {
    let ledger = Ledger::open(args.out.join("scores.jsonl"))?;
    let of = |candidate: &Candidate, scorer: &String| -> Option<Vec<f64>> {
        let score = |sample: &Sample| ledger.get(&candidate.name, scorer, sample.prompt, sample.seed);
        set.samples.iter().map(score).collect()
    };
    let scores = scorers.iter().map(|scorer| candidates.iter().map(|one| of(one, scorer)).collect());
    scores.collect::<Option<_>>().context("a scorer gave fewer scores than it was asked for")
}

fn unscored(ledger: Option<&Ledger>, candidate: &Candidate, scorer: &str, set: &SampleSet) -> Vec<usize> {
    let is_missing = |index: &usize| {
        let sample = set.samples[*index];
        ledger.is_none_or(|ledger| ledger.get(&candidate.name, scorer, sample.prompt, sample.seed).is_none())
    };
    (0..set.samples.len()).filter(is_missing).collect()
}

fn row(candidate: &Candidate, scorer: &str, sample: Sample, score: f64) -> Score {
    Score {
        model: candidate.name.clone(),
        scorer: scorer.to_owned(),
        number: sample.prompt,
        seed: sample.seed,
        score,
    }
}

/// Where the image of a sample lies.
pub fn file(candidate: &Candidate, sample: usize, set: &SampleSet, out: &Path) -> PathBuf {
    match &candidate.source {
        Source::Model { .. } => place(out, &candidate.name, &set.samples[sample]),
        Source::Images { files, .. } => files[sample].clone(),
    }
}
