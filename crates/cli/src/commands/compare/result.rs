//! From scores to the page, the summary and the table on the terminal.

use std::path::Path;
use tastemaker_store::version;

use anyhow::Result;
use tastemaker_eval::compare::{
    self, ComparedModel, Comparison, Extras, Results, ScorerInfo, ShownSample, choose,
};
use tastemaker_generate::read_image;
use tastemaker_pages::{Fact, Thumbnail};

use super::CompareArgs;
use super::candidates::{Candidate, Source};
use super::samples::SampleSet;
use super::scoring::file;
use super::table;
use crate::scorers;

/// Everything that was found, with the images to show.
pub fn comparison(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scorer_names: &[String],
    scores: Vec<Vec<Vec<f64>>>,
) -> Result<Comparison> {
    let shown = shown(args, set, candidates, &scores)?;
    let models = candidates.iter().map(|candidate| ComparedModel {
        name: candidate.name.clone(),
        what: candidate.what.clone(),
        settings: facts_of(candidate),
    });
    let scorers = scorer_names.iter().map(|name| {
        let [unit, about] = scorers::introduced(name.split([':', '=']).next().unwrap_or(name));
        ScorerInfo { name: name.clone(), unit: unit.to_owned(), about: about.to_owned() }
    });
    Ok(Comparison {
        prompts_name: set.prompts.name.clone(),
        prompts: set.prompts.prompts.clone(),
        samples: set.samples.clone(),
        models: models.collect(),
        scorers: scorers.collect(),
        scores,
        seed: args.seed,
        settings: facts(args, set),
        shown,
        focus: None,
    })
}

/// Writes the page and the summary, prints the table.
pub fn report(comparison: &Comparison, out: &Path) -> Result<()> {
    let results = Results::of(comparison)?;
    let page = compare::write(comparison, &results, &Extras::none("compare"), out)?;
    table::print(comparison, &results);
    println!("{}", page.display());
    Ok(())
}

fn shown(
    args: &CompareArgs,
    set: &SampleSet,
    candidates: &[Candidate],
    scores: &[Vec<Vec<f64>>],
) -> Result<Vec<ShownSample>> {
    let by_first = &scores[0];
    let last = by_first.len() - 1;
    let differences: Vec<f64> =
        by_first[last].iter().zip(&by_first[0]).map(|(score, first)| score - first).collect();
    let shown = |(sample, choice)| {
        let image = |candidate| Ok(Thumbnail::new(&read_image(&file(candidate, sample, set, &args.out))?)?);
        let images = candidates.iter().map(image).collect::<Result<_>>()?;
        Ok(ShownSample { sample, choice, real: None, images })
    };
    choose(&differences, args.n_images).into_iter().map(shown).collect()
}

fn facts(args: &CompareArgs, set: &SampleSet) -> Vec<Fact> {
    vec![
        Fact::new("program", format!("tastemaker {}", version())),
        Fact::new("prompts", format!("{}: {}", set.prompts.name, set.prompts.summary())),
        Fact::new("prompts sha256", set.prompts.fingerprint()),
        Fact::new("images of each model", set.samples.len()),
        Fact::new("seed", args.seed),
        Fact::new("noise", set.rule),
    ]
}

fn facts_of(candidate: &Candidate) -> Vec<Fact> {
    let mut facts = Vec::new();
    match &candidate.source {
        Source::Model { lora, settings, recorded, .. } => {
            facts.extend(lora.iter().map(|lora| Fact::new("LoRA", lora.display())));
            facts.extend(recorded.iter().map(|(name, value)| Fact::new(name, value)));
            facts.push(Fact::new("batch_size", settings.batch_size));
        }
        Source::Images { .. } => facts.push(Fact::new("images", "as they were found")),
    }
    facts.push(Fact::new("sha256", &candidate.fingerprint));
    facts
}
