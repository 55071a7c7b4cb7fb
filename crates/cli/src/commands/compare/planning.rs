//! What a folder's images and scores were made from, and whether they still are what is wanted.

use std::collections::BTreeMap;

use anyhow::Result;
use tastemaker_eval::EvalError;
use tastemaker_eval::compare::{PLAN_FORMAT, Plan, PlannedContestant, PlannedPrompts};
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::tree::{LocalTree, Tree};
use tastemaker_store::{StoreError, json};

use super::CompareArgs;
use super::asked::Asked;
use super::contestants::{Entrant, Source};

/// Hashes what a contestant's images are made from: weights, configurations and tokenizers, or the images themselves.
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
        Source::Images { folder, .. } => {
            for entry in LocalTree::new(folder).entries()? {
                parts.push(format!("{} {}", entry.path, sha256_file(folder.join(&entry.path))?));
            }
        }
    }
    entrant.fingerprint = sha256_bytes(parts.join("\n").as_bytes());
    Ok(())
}

/// Checks the folder's plan, if it has one, and writes the one that holds from now on.
///
/// # Errors
/// [`EvalError::Compared`] with every difference.
pub fn agree(
    args: &CompareArgs,
    asked: &Asked,
    entrants: &[Entrant],
    scorers: BTreeMap<String, String>,
) -> Result<()> {
    let path = args.out.join("compare.json");
    let new = plan(args, asked, entrants, scorers);
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

/// Images of nobody knows what are not taken for ours.
fn refuse_strangers(args: &CompareArgs) -> Result<()> {
    for name in ["images", "scores.jsonl"] {
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

fn plan(args: &CompareArgs, asked: &Asked, entrants: &[Entrant], scorers: BTreeMap<String, String>) -> Plan {
    let contestant = |entrant: &Entrant| PlannedContestant {
        name: entrant.name.clone(),
        what: entrant.what.clone(),
        fingerprint: entrant.fingerprint.clone(),
        generating: match &entrant.source {
            Source::Model { generating, .. } => generating.facts(),
            Source::Images { .. } => Default::default(),
        },
    };
    Plan {
        format: PLAN_FORMAT,
        prompts: PlannedPrompts {
            name: asked.set.name.clone(),
            n: asked.set.prompts.len(),
            fingerprint: asked.set.fingerprint(),
            noise: asked.rule.to_owned(),
        },
        seed: args.seed,
        contestants: entrants.iter().map(contestant).collect(),
        scorers,
    }
}
