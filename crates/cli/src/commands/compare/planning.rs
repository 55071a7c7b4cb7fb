//! What a folder's pictures and scores were made from, and whether they still are what is wanted.

use std::path::Path;

use anyhow::Result;
use tastemaker_eval::EvalError;
use tastemaker_eval::compare::{PLAN_FORMAT, Plan, PlannedContestant, PlannedPrompts, PlannedScorer};
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::tree::{LocalTree, Tree};
use tastemaker_store::{StoreError, json};

use super::CompareArgs;
use super::asked::Asked;
use super::contestants::{Entrant, Source};

/// Hashes what a contestant's pictures are made from: weights, configurations and tokenizers, or the pictures themselves.
pub fn identify(entrant: &mut Entrant) -> Result<()> {
    println!("reading {}", entrant.name);
    let mut parts: Vec<String> = Vec::new();
    match &entrant.source {
        Source::Model { model, lora, .. } => {
            parts.extend([model.unet_fingerprint()?, model.vae_fingerprint()?, model.text_fingerprint()?]);
            let schedule = model.path().join("scheduler/scheduler_config.json");
            if schedule.is_file() {
                parts.push(sha256_file(schedule)?);
            }
            if let Some(lora) = lora {
                parts.push(sha256_file(lora)?);
            }
        }
        Source::Pictures { folder, .. } => {
            parts.extend(listing(folder)?);
        }
    }
    entrant.fingerprint = sha256_bytes(parts.join("\n").as_bytes());
    Ok(())
}

/// Checks the folder's plan, if it has one, and writes the one that holds from now on.
///
/// # Errors
/// [`EvalError::Compared`] with every difference.
pub fn agree(args: &CompareArgs, asked: &Asked, entrants: &[Entrant], scorers: &[String]) -> Result<()> {
    let path = args.out.join("compare.json");
    let new = plan(args, asked, entrants, scorers)?;
    let joined = match Plan::read(&path)? {
        None => {
            refuse_strangers(args)?;
            new
        }
        Some(old) => {
            let differences = old.differences(&new);
            if !differences.is_empty() {
                let what =
                    format!("{}; give another --out, or another name to what is new", differences.join("; "));
                return Err(EvalError::Compared { path, what }.into());
            }
            old.followed_by(new)
        }
    };
    Ok(json::write(path, &joined)?)
}

/// Pictures of nobody knows what are not taken for ours.
fn refuse_strangers(args: &CompareArgs) -> Result<()> {
    for name in ["pictures", "scores.jsonl"] {
        let path = args.out.join(name);
        if path.exists() {
            let what =
                "it is there without a compare.json that says what it is from; give another --out".into();
            return Err(EvalError::Compared { path, what }.into());
        }
    }
    if args.out.is_file() {
        let found = "a file";
        return Err(StoreError::malformed(&args.out, found, "a folder").into());
    }
    Ok(())
}

/// The weights behind `NAME=WEIGHTS`, a file or a folder; `None` for a scorer that was named alone.
fn weights(typed: &str) -> Result<Option<String>> {
    let Some(path) = typed.split_once('=').map(|(_, path)| Path::new(path)) else { return Ok(None) };
    if path.is_file() {
        return Ok(Some(sha256_file(path)?));
    }
    Ok(if path.is_dir() { Some(sha256_bytes(listing(path)?.join("\n").as_bytes())) } else { None })
}

/// Every file of a folder with its SHA-256.
fn listing(folder: &Path) -> Result<Vec<String>> {
    let entries = LocalTree::new(folder).entries()?.into_iter();
    entries.map(|entry| Ok(format!("{} {}", entry.path, sha256_file(folder.join(&entry.path))?))).collect()
}

fn plan(args: &CompareArgs, asked: &Asked, entrants: &[Entrant], scorers: &[String]) -> Result<Plan> {
    let scorer = |(typed, name): (&String, &String)| {
        let fingerprint = weights(typed)?;
        Ok(PlannedScorer { name: name.clone(), what: typed.clone(), fingerprint })
    };
    let contestant = |entrant: &Entrant| PlannedContestant {
        name: entrant.name.clone(),
        what: entrant.what.clone(),
        fingerprint: entrant.fingerprint.clone(),
        painting: match &entrant.source {
            Source::Model { painting, .. } => painting.facts(),
            Source::Pictures { .. } => Default::default(),
        },
    };
    Ok(Plan {
        format: PLAN_FORMAT,
        prompts: PlannedPrompts {
            name: asked.set.name.clone(),
            n: asked.set.prompts.len(),
            fingerprint: asked.set.fingerprint(),
            noise: asked.rule.to_owned(),
        },
        seed: args.seed,
        contestants: entrants.iter().map(contestant).collect(),
        scorers: args.scorer.iter().zip(scorers).map(scorer).collect::<Result<_>>()?,
    })
}
