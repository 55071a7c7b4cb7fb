//! What a folder's images and scores were made from, and whether they still are what is wanted.

use std::collections::BTreeMap;

use anyhow::Result;
use tastemaker_eval::EvalError;
use tastemaker_eval::compare::{PLAN_FORMAT, Plan, PlannedModel, PlannedPrompts};
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::json;
use tastemaker_store::tree::{LocalTree, Tree};

use super::CompareArgs;
use super::candidates::{Candidate, Source};
use super::samples::SampleSet;
use crate::place::rename_images;

/// Hashes what a model's images are made from: weights, configurations and tokenizers, or the images themselves.
pub fn identify(candidate: &mut Candidate) -> Result<()> {
    println!("reading {}", candidate.name);
    let mut parts: Vec<String> = Vec::new();
    match &candidate.source {
        Source::Model { model, lora, .. } => {
            parts.extend([
                model.backbone_fingerprint()?,
                model.vae_fingerprint()?,
                model.text_fingerprint()?,
            ]);
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
    candidate.fingerprint = sha256_bytes(parts.join("\n").as_bytes());
    Ok(())
}

/// Checks the folder's plan, if it has one, and writes the one that holds from now on.
///
/// # Errors
/// [`EvalError::Compared`] with every difference.
pub fn agree(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scorers: BTreeMap<String, String>,
) -> Result<()> {
    let path = args.out.join("compare.json");
    let new = plan(args, set, candidates, scorers);
    let joined = match Plan::read(&path)? {
        None => new,
        Some(old) => {
            let differences = old.differences(&new);
            if !differences.is_empty() {
                let what = format!(
                    "{}; choose another --out or --overwrite, or give another name to what is new",
                    differences.join("; ")
                );
                return Err(EvalError::Compared { path, what }.into());
            }
            rename_images(&args.out)?;
            old.followed_by(new)
        }
    };
    Ok(json::write(path, &joined)?)
}

fn plan(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scorers: BTreeMap<String, String>,
) -> Plan {
    let planned = |candidate: &Candidate| PlannedModel {
        name: candidate.name.clone(),
        what: candidate.what.clone(),
        fingerprint: candidate.fingerprint.clone(),
        generation: match &candidate.source {
            Source::Model { recorded, .. } => recorded.clone(),
            Source::Images { .. } => Default::default(),
        },
    };
    Plan {
        format: PLAN_FORMAT,
        prompts: PlannedPrompts {
            name: set.prompts.name.clone(),
            n: set.prompts.prompts.len(),
            fingerprint: set.prompts.fingerprint(),
            noise: set.rule.to_owned(),
        },
        seed: args.seed,
        models: candidates.iter().map(planned).collect(),
        scorers,
    }
}
