//! From scores to the page, the summary and the table on the terminal.

use std::path::Path;

use anyhow::Result;
use tastemaker_eval::compare::{self, Contest, Contestant, Exhibit, Figures, ScorerFacts, Thumb, choose};
use tastemaker_eval::report::Fact;
use tastemaker_eval::scorers::SCORERS;

use super::CompareArgs;
use super::asked::Asked;
use super::contestants::{Entrant, Source};
use super::scoring::image;
use super::table;

/// Everything that was found, with the images to show.
pub fn contest(
    args: &CompareArgs,
    asked: &Asked,
    entrants: &[Entrant],
    scorers: &[String],
    scores: Vec<Vec<Vec<f64>>>,
) -> Result<Contest> {
    let exhibits = exhibits(args, asked, entrants, &scores)?;
    let contestants = entrants.iter().map(|entrant| Contestant {
        name: entrant.name.clone(),
        what: entrant.what.clone(),
        settings: facts_of(entrant),
    });
    let unit = |name: &String| {
        let entry = name.split([':', '=']).next().unwrap_or(name);
        SCORERS.iter().find(|known| known.name == entry).map_or("", |known| known.unit).to_owned()
    };
    let scorers = scorers.iter().map(|name| ScorerFacts { name: name.clone(), unit: unit(name) });
    Ok(Contest {
        prompts_name: asked.set.name.clone(),
        prompts: asked.set.prompts.clone(),
        questions: asked.questions.clone(),
        contestants: contestants.collect(),
        scorers: scorers.collect(),
        scores,
        seed: args.seed,
        settings: facts(args, asked),
        exhibits,
    })
}

/// Writes the page and the summary, prints the table.
pub fn report(contest: &Contest, out: &Path) -> Result<()> {
    let figures = Figures::of(contest)?;
    let page = compare::write(contest, &figures, out)?;
    table::print(contest, &figures);
    println!("{}", page.display());
    Ok(())
}

fn exhibits(
    args: &CompareArgs,
    asked: &Asked,
    entrants: &[Entrant],
    scores: &[Vec<Vec<f64>>],
) -> Result<Vec<Exhibit>> {
    let by_first = &scores[0];
    let last = by_first.len() - 1;
    let differences: Vec<f64> =
        by_first[last].iter().zip(&by_first[0]).map(|(score, first)| score - first).collect();
    let exhibit = |(question, choice)| {
        let thumb = |entrant| Ok(Thumb::new(&image(entrant, question, asked, &args.out)?)?);
        let images = entrants.iter().map(thumb).collect::<Result<_>>()?;
        Ok(Exhibit { question, choice, images })
    };
    choose(&differences, args.n_images).into_iter().map(exhibit).collect()
}

fn facts(args: &CompareArgs, asked: &Asked) -> Vec<Fact> {
    vec![
        Fact::new("program", concat!("tastemaker ", env!("CARGO_PKG_VERSION"))),
        Fact::new("prompts", format!("{}: {}", asked.set.name, asked.set.said())),
        Fact::new("prompts sha256", asked.set.fingerprint()),
        Fact::new("images of each contestant", asked.questions.len()),
        Fact::new("seed", args.seed),
        Fact::new("noise", asked.rule),
    ]
}

fn facts_of(entrant: &Entrant) -> Vec<Fact> {
    let mut facts = Vec::new();
    match &entrant.source {
        Source::Model { lora, generating, .. } => {
            facts.extend(lora.iter().map(|lora| Fact::new("LoRA", lora.display())));
            facts.extend(generating.facts().iter().map(|(name, value)| Fact::new(name, value)));
            facts.push(Fact::new("batch_size", generating.batch_size));
        }
        Source::Images { .. } => facts.push(Fact::new("images", "as they were found")),
    }
    facts.push(Fact::new("sha256", &entrant.fingerprint));
    facts
}
